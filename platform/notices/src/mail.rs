//! Notices as mail.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::ports::hooks::Occasion;
use handover_engine::time::{Clock, Timestamp};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use tokio::time::timeout;

use crate::section::{NoticeSection, NoticesSection, Security};
use crate::text::{Kind, Names, fill};

type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// What a host tells its clients.
pub struct Notices {
    section: NoticesSection,
    notices: Vec<NoticeSection>,
    names: Names,
    clock: Arc<dyn Clock>,
}

impl Notices {
    /// As the manifest says; with no `[[notice]]` everybody is told everything in the product's words.
    pub fn new(
        section: NoticesSection,
        mut notices: Vec<NoticeSection>,
        names: Names,
        clock: Arc<dyn Clock>,
    ) -> Self {
        if notices.is_empty() {
            let (subject, body, to, required) = (None, None, Vec::new(), false);
            notices.push(NoticeSection { moments: Kind::ALL.to_vec(), subject, body, to, required });
        }
        Self { section, notices, names, clock }
    }

    /// Gives notice of an occasion, where that is asked for; what was not sent. A failure is that of a notice which is required.
    pub async fn give(&self, occasion: &Occasion) -> Result<Vec<String>> {
        let Some(kind) = Kind::of(occasion) else { return Ok(Vec::new()) };
        let mut warnings = Vec::new();
        for notice in self.notices.iter().filter(|notice| notice.moments.contains(&kind)) {
            let Err(failure) = self.send(notice, kind, occasion).await else { continue };
            tracing::warn!(migration = %occasion.migration, %kind, %failure, "a notice was not sent");
            if notice.required && occasion.moment.can_stop() {
                return Err(failure);
            }
            warnings.push(failure.to_string());
        }
        Ok(warnings)
    }

    /// Each gets a mail of his own: nobody learns who else is told. Goes on past who cannot be reached; tells the first failure.
    async fn send(&self, notice: &NoticeSection, kind: Kind, occasion: &Occasion) -> Result<()> {
        let item = format!("notice {kind}");
        let to = if notice.to.is_empty() { &self.section.to } else { &notice.to };
        let all = async {
            let transport = self.transport()?;
            let mut sent = 0;
            let mut first = None;
            for recipient in to {
                let message = self.message(notice, kind, occasion, recipient)?;
                match transport.send(message).await {
                    Ok(_) => sent += 1,
                    Err(error) => {
                        first.get_or_insert(error);
                    }
                }
            }
            let Some(error) = first else {
                tracing::info!(migration = %occasion.migration, %kind, sent, "notice was given");
                return Ok(());
            };
            let what = format!("it was sent to {sent} of {}", to.len());
            let server = &self.section.smtp;
            let hint = format!(
                "is the server at {}:{} there, and does it take mail from here?",
                server.host, server.port
            );
            Err(Failure::operator(&item, what).because(error).hint(hint))
        };
        timeout(self.section.limit(), all).await.unwrap_or_else(|_| {
            let what = format!("it was not sent within {} s", self.section.seconds);
            Err(Failure::operator(&item, what)
                .hint("is the server there? [notices] `seconds` gives it longer"))
        })
    }

    fn message(
        &self,
        notice: &NoticeSection,
        kind: Kind,
        occasion: &Occasion,
        recipient: &Mailbox,
    ) -> Result<Message> {
        let now = self.clock.now();
        let filled = |text: &Option<String>, usual: &str| {
            fill(text.as_deref().unwrap_or(usual), &self.names, kind, occasion, now)
        };
        let from = self.section.from.clone();
        // Told twice, it is known for the same.
        let at = occasion.at.map_or_else(String::new, |at| format!(".{}", at.seconds));
        let id = format!("<handover.{}.{kind}{at}@{}>", occasion.migration, from.email.domain());
        let automatic =
            HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
        let mut body = filled(&notice.body, kind.body());
        if !body.ends_with('\n') {
            body.push('\n');
        }
        Message::builder()
            .from(from)
            .to(recipient.clone())
            .date(system_time(now))
            .message_id(Some(id))
            .subject(filled(&notice.subject, kind.subject()))
            .raw_header(automatic)
            .header(ContentType::TEXT_PLAIN)
            .body(body)
            .map_err(|error| {
                Failure::operator(format!("notice {kind}"), "it cannot be written").because(error)
            })
    }

    /// The way to the server. The password and the certificates are read anew each time: they may change while the agent runs.
    fn transport(&self) -> Result<Transport> {
        let NoticesSection { smtp, user, password_file, ca, .. } = &self.section;
        let mut builder =
            Transport::builder_dangerous(&smtp.host).port(smtp.port).timeout(Some(self.section.limit()));
        if smtp.security != Security::Plain {
            let parameters = trust(&smtp.host, ca)?;
            builder = builder.tls(match smtp.security {
                Security::Tls => Tls::Wrapper(parameters),
                _ => Tls::Required(parameters),
            });
        }
        if let (Some(user), Some(file)) = (user, password_file) {
            builder = builder.credentials(Credentials::new(user.clone(), password(file)?));
        }
        Ok(builder.build())
    }
}

/// Only who is certified by these is spoken to.
fn trust(host: &str, ca: &Path) -> Result<TlsParameters> {
    let failed = |what: &str| Failure::operator("notices", format!("{}: {what}", ca.display()));
    let hint = "name the PEM file of the CA of your mail server in [notices] `ca`";
    let pem = std::fs::read(ca).map_err(|error| failed("it cannot be read").because(error).hint(hint))?;
    let certificates = Certificate::from_pem(&pem)
        .map_err(|error| failed("it holds no certificates").because(error).hint(hint))?;
    TlsParameters::builder(host.to_owned())
        .certificate_store(CertificateStore::None)
        .add_root_certificate(certificates)
        .build()
        .map_err(|error| failed("TLS cannot be set up with it").because(error).hint(hint))
}

/// The first line of a file that nobody else may read.
fn password(file: &Path) -> Result<String> {
    let failed = |what: &str| Failure::operator("notices", format!("{}: {what}", file.display()));
    let look = || Ok::<_, std::io::Error>((std::fs::metadata(file)?, std::fs::read_to_string(file)?));
    let (meta, text) = look().map_err(|error| {
        failed("it cannot be read").because(error).hint("put the password there, and let the agent read it")
    })?;
    if meta.permissions().mode() & 0o007 != 0 {
        return Err(failed("everybody may read it").hint("chmod 0600"));
    }
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn system_time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.seconds).unwrap_or(0))
}
