use super::*;

const WWW: &str =
    "[[certificate]]\nname = 'www'\ncertificate = '/etc/ssl/www.pem'\nkey = '/etc/ssl/www.key'\n";

const ACME: &str = "[[certificate]]\nname = 'www'\ncertificate = '/c'\nkey = '/k'\naction = 'reissue'\n\
                    acme = 'https://ca.example.org/dir'\n";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    certificate: Vec<CertificateSection>,
}

fn read(text: &str) -> Result<Vec<CertificateSection>, String> {
    let manifest: Manifest = toml::from_str(text).map_err(|e| e.to_string())?;
    check(&manifest.certificate)
        .map_err(|(section, name, problem)| format!("[[{section}]] `{name}`: {problem}"))?;
    Ok(manifest.certificate)
}

#[test]
fn sections_are_read() {
    let least = read(WWW).unwrap().remove(0);
    assert_eq!((least.action, least.days, least.issuer()), (CertificateAction::Copy, 397, None));
    assert_eq!(least.probe_limit(), Duration::from_secs(30));
    let all = format!(
        "{WWW}services = ['nginx.service']\naction = 'reissue'\nnames = ['www.example.org', '*.example.org', '10.0.0.1']\n\
         probe = ['localhost:443', '[::1]:8443']\nprobe_name = 'www.example.org'\nprobe_seconds = 5\n\
         ca_certificate = '/etc/ca.pem'\nca_key = '/etc/ca.key'\ndays = 90\n"
    );
    let all = read(&all).unwrap().remove(0);
    let issuer = Issuer::Authority { certificate: Path::new("/etc/ca.pem"), key: Path::new("/etc/ca.key") };
    assert_eq!(all.issuer(), Some(issuer));
    let acme = format!("{WWW}action = 'reissue'\nacme_command = ['/usr/local/bin/obtain', 'www']\n");
    assert!(matches!(read(&acme).unwrap()[0].issuer(), Some(Issuer::Command([_, _]))));
    let acme = format!(
        "{WWW}action = 'reissue'\nnames = ['*.example.org']\nacme = 'https://ca.example.org:14000/dir'\n\
         acme_contact = ['mailto:admin@example.org']\nacme_root = '/r'\nacme_account = '/a'\nacme_wait_seconds = 9\n"
    );
    let acme = read(&acme).unwrap().remove(0);
    let contact = ["mailto:admin@example.org".to_owned()];
    let expected = Acme {
        directory: "https://ca.example.org:14000/dir",
        contact: &contact,
        root: Some(Path::new("/r")),
        account: Some(Path::new("/a")),
        wait: Duration::from_secs(9),
    };
    assert_eq!(acme.issuer(), Some(Issuer::Acme(expected)));
    let combined = WWW.replace("www.key", "www.pem");
    assert!(read(&combined).unwrap()[0].is_combined());
}

#[test]
fn bad_ones_are_refused_by_name() {
    let second = WWW.replace("'www'", "'mail'");
    for (text, part) in [
        (format!("{WWW}colour = 1"), "colour"),
        (format!("{WWW}action = 'steal'"), "steal"),
        (WWW.replace("'www'", "'../www'"), "`name`"),
        (WWW.replace("/etc/ssl/www.pem", "www.pem"), "`certificate`: write the absolute path"),
        (WWW.replace("/etc/ssl/www.key", "/"), "`key`: write the absolute path"),
        (format!("{WWW}services = ['a b']"), "`services`"),
        (format!("{WWW}names = ['a b']"), "`a b` is no DNS name"),
        (format!("{WWW}names = ['*.10.0.0.1']"), "is no DNS name"),
        (format!("{WWW}probe = ['www']"), "`probe`: `www`"),
        (format!("{WWW}probe = ['::1:443']"), "`probe`"),
        (format!("{WWW}probe = ['www:0']"), "`probe`"),
        (format!("{WWW}probe = [':443']"), "`probe`"),
        (format!("{WWW}probe_name = '*.example.org'"), "`probe_name`"),
        (format!("{WWW}probe_seconds = 0"), "`probe_seconds`"),
        (format!("{WWW}action = 'reissue'"), "needs `ca_certificate` and `ca_key`, or `acme`, or"),
        (format!("{WWW}action = 'reissue'\nca_key = '/k'"), "write `ca_certificate` and `ca_key`"),
        (format!("{WWW}action = 'reissue'\nacme_command = ['lego']"), "absolute path of a program"),
        (format!("{WWW}acme_command = ['/bin/lego']"), "are for action"),
        (format!("{WWW}action = 'reissue'\nacme_command = ['/l']\ndays = 0"), "`days`"),
        (format!("{WWW}acme = 'https://ca/dir'"), "are for action"),
        (format!("{ACME}acme_command = ['/l']"), "one of them"),
        (format!("{ACME}ca_certificate = '/c'\nca_key = '/k'"), "one of them"),
        (ACME.replace("https", "http"), "`acme`: write the https address"),
        (ACME.replace("ca.example.org", "me:pw@ca.example.org"), "`acme`: write the https address"),
        (format!("{ACME}acme_root = 'r'"), "`acme_root`: write the absolute path"),
        (format!("{ACME}acme_account = '/'"), "`acme_account`: write the absolute path"),
        (format!("{ACME}acme_contact = ['admin']"), "`acme_contact`: `admin` is not like mailto:"),
        (format!("{ACME}acme_wait_seconds = 301"), "`acme_wait_seconds`: write 0 to 300"),
        (format!("{ACME}names = ['www.example.org', '10.0.0.1']"), "`10.0.0.1` is an address"),
        (format!("{WWW}acme_root = '/r'"), "are for `acme`"),
        (format!("{WWW}{WWW}"), "used twice"),
        (format!("{WWW}{second}"), "belongs to another section"),
    ] {
        let told = read(&text).unwrap_err();
        assert!(told.contains(part), "{part}: {told}");
    }
}
