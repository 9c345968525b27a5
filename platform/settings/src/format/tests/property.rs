//! Files made at random: what is set to what it is stays as it is, and what is set away and back is what it was.

use super::*;

/// A value of the kinds that files of settings hold.
fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z][a-zA-Z0-9_]{0,8}"
}

fn blank() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("\n".to_owned()),
        Just("# größe: x = [1]\n".to_owned()),
        Just("#\n\n".to_owned())
    ]
}

/// Lines of a file, each with what comes before it, and the number of one of them.
fn lines() -> impl Strategy<Value = (Vec<(String, String)>, usize)> {
    prop::collection::vec((blank(), word()), 1..8).prop_flat_map(|lines| {
        let many = lines.len();
        (Just(lines), 0..many)
    })
}

fn build(
    lines: &[(String, String)],
    crlf: bool,
    ended: bool,
    head: &str,
    line: impl Fn(usize, &str) -> String,
) -> String {
    let mut text = head.to_owned();
    for (at, (before, value)) in lines.iter().enumerate() {
        text.push_str(before);
        text.push_str(&line(at, value));
        text.push('\n');
    }
    if !ended {
        text.pop();
    }
    if crlf { text.replace('\n', "\r\n") } else { text }
}

fn away_and_back(format: Format, text: &str, key: &str, other: &str) {
    let was = read(format, text, key).unwrap();
    assert!(was.is_some(), "{key} in {text:?}");
    assert_eq!(change(format, text, key, was.clone()).unwrap(), text);
    let away = change(format, text, key, some(other)).unwrap_or_else(|e| panic!("{key} in {text:?}: {e}"));
    assert_eq!(change(format, &away, key, was).unwrap(), text, "by way of {away:?}");
}

fn added_and_removed(format: Format, text: &str, key: &str) {
    let added = change(format, text, key, some("added")).unwrap_or_else(|e| panic!("{key} in {text:?}: {e}"));
    assert_eq!(read(format, &added, key).unwrap(), some("added"));
    assert_eq!(change(format, &added, key, None).unwrap(), text, "by way of {added:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn ini((lines, at) in lines(), crlf: bool, ended: bool, other in word()) {
        let text = build(&lines, crlf, ended, "[S]\n", |at, value| format!("k{at} = {value}"));
        away_and_back(Format::Ini, &text, &format!("S.k{at}"), &other);
        added_and_removed(Format::Ini, &text, "S.new");
    }

    #[test]
    fn env((lines, at) in lines(), crlf: bool, ended: bool, other in word(), quote in "['\"]?") {
        let text = build(&lines, crlf, ended, "", |at, value| format!("export K{at}={quote}{value}{quote}"));
        away_and_back(Format::Env, &text, &format!("K{at}"), &other);
        added_and_removed(Format::Env, &text, "NEW");
    }

    #[test]
    fn toml((lines, at) in lines(), crlf: bool, ended: bool, other in word(), quote in "['\"]", inline: bool) {
        let text = build(&lines, crlf, ended, "[s]\n", |at, value| match inline {
            true => format!("k{at} = {{ v = {quote}{value}{quote}, w = [1, 2] }} # c"),
            false => format!("k{at} = {quote}{value}{quote} # c"),
        });
        let key = if inline { format!("s.k{at}.v") } else { format!("s.k{at}") };
        away_and_back(Format::Toml, &text, &key, &other);
        added_and_removed(Format::Toml, &text, "s.new");
        if inline {
            added_and_removed(Format::Toml, &text, &format!("s.k{at}.new"));
        }
    }

    #[test]
    fn json((lines, at) in lines(), crlf: bool, other in word(), inline: bool) {
        let last = lines.len() - 1;
        let text = build(&lines, false, true, "{\n", |at, value| {
            let comma = if at < last { "," } else { "" };
            match inline {
                true => format!("  \"k{at}\": {{ \"v\": \"{value}\", \"w\": [1, 2] }}{comma} // c"),
                false => format!("  \"k{at}\": \"{value}\"{comma} // c"),
            }
        });
        let text = format!("{}}}\n", text.replace("\n#", "\n//").replace("{\n#", "{\n//"));
        let text = if crlf { text.replace('\n', "\r\n") } else { text };
        let key = if inline { format!("k{at}.v") } else { format!("k{at}") };
        away_and_back(Format::Json, &text, &key, &other);
        added_and_removed(Format::Json, &text, "new");
        if inline {
            added_and_removed(Format::Json, &text, &format!("k{at}.new"));
        }
    }

    #[test]
    fn yaml((lines, at) in lines(), crlf: bool, ended: bool, other in word(), quote in "['\"]?", form in 0_usize..3) {
        let text = build(&lines, crlf, ended, "top:\n  sub:\n", |at, value| match form {
            0 => format!("    k{at}: {quote}v{value}x{quote} # c"),
            1 => format!("    k{at}: {{v: {quote}v{value}x{quote}, w: [1, 2]}}"),
            _ => format!("    k{at}:\n      - v: {quote}v{value}x{quote}\n        w: 1"),
        });
        let tail = ["", ".v", "[0].v"][form];
        away_and_back(Format::Yaml, &text, &format!("top.sub.k{at}{tail}"), &format!("v{other}x"));
        added_and_removed(Format::Yaml, &text, "top.sub.new");
        if form == 1 {
            added_and_removed(Format::Yaml, &text, &format!("top.sub.k{at}.new"));
        }
    }

    /// Whatever a file holds and whatever is set: it is changed as wanted, or refused; never does anything panic.
    #[test]
    fn anything(text in "[a-c\\[\\]{}:=,'\"#&*|>\\- \n\r\té]{0,60}", value in "[a-z\\[\\]{}:=,'\"#&*|\\\\ \nü]{0,8}") {
        for (format, keys) in [
            (Format::Ini, ["a", "b.c"]), (Format::Env, ["a", "b"]), (Format::Toml, ["a", "b.c"]),
            (Format::Json, ["a", "b.c"]), (Format::Yaml, ["a", "b[0].c"]),
        ] {
            for key in keys {
                let before = read(format, &text, key);
                for value in [some(value.as_str()), some(json!([value, value])), None] {
                    if let Ok(now) = change(format, &text, key, value.clone()) {
                        assert_eq!(read(format, &now, key), Ok(format.canonical(value)), "{key} in {text:?}: {now:?}");
                    }
                }
                if let Ok(before) = before {
                    assert_eq!(change(format, &text, key, before), Ok(text.clone()));
                }
            }
        }
    }
}
