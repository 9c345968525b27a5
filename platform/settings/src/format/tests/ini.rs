//! INI: of systemd, where lines begin with their comments, and of others.

use super::*;

#[test]
fn ini_is_changed_in_its_place() {
    check(
        Format::Ini,
        &[
            ("[A]\nk=1\n", "A.k", some("2"), "[A]\nk=2\n"),
            ("# top\n[A]\n  k  =  1  \n; end\n", "A.k", some("2"), "# top\n[A]\n  k  =  2  \n; end\n"),
            ("[A]\r\nk=1\r\nl=2\r\n", "A.k", some("x"), "[A]\r\nk=x\r\nl=2\r\n"),
            ("[A]\r\nk=1\r\n", "A.l", some("x"), "[A]\r\nk=1\r\nl=x\r\n"),
            ("[A]\nk=1", "A.k", some("2"), "[A]\nk=2"),
            ("[A]\nk=1", "A.l", some("2"), "[A]\nk=1\nl=2"),
            ("[A]\nk=1\nl=2", "A.l", None, "[A]\nk=1"),
            ("[A]\nk=1\n\n[B]\nk=2\n", "A.l", some("3"), "[A]\nk=1\nl=3\n\n[B]\nk=2\n"),
            ("[A]\nk=1\n", "B.k", some("2"), "[A]\nk=1\n\n[B]\nk=2\n"),
            ("", "B.k", some("2"), "[B]\nk=2\n"),
            ("[A]\n", "A.k", some("2"), "[A]\nk=2\n"),
            ("[A]", "A.k", some("2"), "[A]\nk=2"),
            ("", "k", some("2"), "k=2\n"),
            ("[A]\nk=1\n", "k", some("2"), "k=2\n\n[A]\nk=1\n"),
            ("k=1\n[A]\nk=2\n", "k", some("3"), "k=3\n[A]\nk=2\n"),
            ("[A]\nk=\n", "A.k", some("2"), "[A]\nk=2\n"),
            ("[A]\nk=1\n", "A.k", some(""), "[A]\nk=\n"),
            ("[a.b]\nk=1\n", "\"a.b\".k", some("2"), "[a.b]\nk=2\n"),
            ("[Größe]\nü=ä\n", "Größe.ü", some("ö"), "[Größe]\nü=ö\n"),
            ("\u{feff}[A]\nk=1\n", "A.k", some("2"), "\u{feff}[A]\nk=2\n"),
            ("\u{feff}", "k", some("2"), "\u{feff}k=2\n"),
            ("[A]\nk=a \\\n  b\nl=1\n", "A.k", some("c"), "[A]\nk=c\nl=1\n"),
            ("[A]\n# k=0\nk=1 # all of it\n", "A.k", some("2"), "[A]\n# k=0\nk=2\n"),
            // Keys and sections that come more than once.
            ("[N]\nA=1\nA=2\nB=3\n", "N.A", some(json!(["1", "5"])), "[N]\nA=1\nA=5\nB=3\n"),
            ("[N]\nA=1\nB=3\n", "N.A", some(json!(["1", "5"])), "[N]\nA=1\nA=5\nB=3\n"),
            ("[N]\nA=1\nA=2\nA=3\n", "N.A", some("9"), "[N]\nA=9\n"),
            ("[N]\nA=1\nA=2\n", "N.A", None, "[N]\n"),
            ("[N]\nA=1\n", "N.A", some(json!(["7"])), "[N]\nA=7\n"),
            ("[R]\nG=1\n[R]\nG=2\n", "R.G", some(json!(["1", "3"])), "[R]\nG=1\n[R]\nG=3\n"),
        ],
    );
}

#[test]
fn ini_that_is_not_sure_is_refused() {
    refuse(
        Format::Ini,
        &[
            ("[R]\nG=1\n[R]\nG=2\n", "R.G", some("3"), "more than once"),
            ("[R]\nG=1\n[R]\nD=2\n", "R.D", None, "more than once"),
            ("[A]\nk=1\n", "A.k", some("a\nb"), "several lines"),
            ("[A]\nk=1\n", "A.k", some(" a"), "without changing something else"),
            ("[A]\nk=1\n", "A.k", some("a\\"), "go on in the next line"),
            ("[A]\nk=1\n", "A.k", some(5), "texts"),
            ("[A]\nk=1\n", "A.#x", some("5"), "no path of a key"),
            ("[A]\nk=1\n", "A.\"#x\"", some("5"), "without changing something else"),
            ("[A]\nk=1\n", "A.\"x=y\"", some("5"), "without changing something else"),
            ("[A]\nk=a \\\n# c\nb\n", "A.k", some("5"), "comments lie between"),
        ],
    );
    let bytes = b"[A]\nk=\xff\n";
    let told =
        set(Format::Ini, &file(Format::Ini), bytes, &Values::from([("A.k".into(), some("1"))])).unwrap_err();
    assert!(told.to_string().contains("UTF-8"));
}

#[test]
fn other_ini_has_comments_behind_values() {
    let cnf = PathBuf::from("/etc/mysql/my.cnf");
    for (text, key, value, expected) in [
        ("[m]\nport = 1 # one\n", "m.port", some("2"), "[m]\nport = 2 # one\n"),
        ("[m]\nport = \"a # b\" ; c\n", "m.port", some("2"), "[m]\nport = 2 ; c\n"),
        (
            "[m]\nskip-x\nport = 1\n!includedir /etc/x\n",
            "m.skip-x",
            None,
            "[m]\nport = 1\n!includedir /etc/x\n",
        ),
        ("[m]\nport = 1\n", "m.skip-x", some(Value::Null), "[m]\nport = 1\nskip-x\n"),
        ("[m]\nskip-x\nport = 1\n", "m.skip-x", some("1"), "[m]\nskip-x = 1\nport = 1\n"),
    ] {
        let values = Values::from([(key.to_owned(), value)]);
        let now = set(Format::Ini, &cnf, text.as_bytes(), &values).unwrap();
        assert_eq!(String::from_utf8(now).unwrap(), expected);
    }
    for (text, value, part) in [
        ("[m]\nk = 1\n", "a # b", "without changing something else"),
        ("[m]\nk = 1\n  2\n", "a", "goes on in the next line"),
    ] {
        let told = set(Format::Ini, &cnf, text.as_bytes(), &Values::from([("m.k".into(), some(value))]))
            .unwrap_err();
        assert!(told.to_string().contains(part), "{told}");
    }
}
