//! TOML.

use super::*;

#[test]
fn toml_is_changed_in_its_place() {
    check(
        Format::Toml,
        &[
            ("a = 1 # one\n", "a", some(2), "a = 2 # one\n"),
            ("a = 1\r\n# x\r\nb = 'y'\r\n", "b", some("z"), "a = 1\r\n# x\r\nb = 'z'\r\n"),
            ("b = 'y'\n", "b", some("it's"), "b = \"it's\"\n"),
            ("b = \"\"\"\nx\ny\n\"\"\"\n", "b", some("p\nq\n"), "b = \"\"\"\np\nq\n\"\"\"\n"),
            ("b = '''\nx\\\ny'''\n", "b", some("p\\\nq"), "b = '''\np\\\nq'''\n"),
            ("[s]\nk = 1", "s.k", some(2), "[s]\nk = 2"),
            ("[s]\nk = 1", "s.l", some(2), "[s]\nk = 1\nl = 2"),
            (
                "[s]\n  k = 1 # c\n\n[t]\nk = 3\n",
                "s.l",
                some("x"),
                "[s]\n  k = 1 # c\n  l = \"x\"\n\n[t]\nk = 3\n",
            ),
            ("[s]\nk = 1\n", "t.u.k", some(true), "[s]\nk = 1\n\n[t.u]\nk = true\n"),
            ("[s]\n[t]\n", "s.k", some(true), "[s]\nk = true\n[t]\n"),
            ("", "k", some(1), "k = 1\n"),
            ("", "s.k", some(1), "[s]\nk = 1\n"),
            ("[s]\nk = 1\n", "k", some(1), "k = 1\n\n[s]\nk = 1\n"),
            ("\"a.b\".c = 1\n", "\"a.b\".c", some(2), "\"a.b\".c = 2\n"),
            ("a.b = 1\n", "a.c", some(2), "a.b = 1\na.c = 2\n"),
            ("p = { x = 1, y = 2 }\n", "p.x", some(5), "p = { x = 5, y = 2 }\n"),
            ("p = { x = 1, y = 2 }\n", "p.y", None, "p = { x = 1 }\n"),
            ("p = { x = 1 }\n", "p.z", some("q"), "p = { x = 1, z = \"q\" }\n"),
            (
                "l = [\n  1, # one\n  2, # two\n]\n",
                "l",
                some(json!([1, 3])),
                "l = [\n  1, # one\n  3, # two\n]\n",
            ),
            ("l = [\n  1, # one\n  2, # two\n]\n", "l", some(json!([1])), "l = [\n  1, # one\n]\n"),
            (
                "l = [\n  1, # one\n  2 # two\n]\n",
                "l",
                some(json!([1, 2, 3])),
                "l = [\n  1, # one\n  2, # two\n  3\n]\n",
            ),
            ("l = [1, 2]\n", "l[1]", some(9), "l = [1, 9]\n"),
            ("a = 1\nb = 2 # two\nc = 3\n", "b", None, "a = 1\nc = 3\n"),
            ("a = 1\nb = 2", "b", None, "a = 1"),
            ("d = 1979-05-27T07:32:00Z\n", "d", some(json!({"$date": "2020-01-01"})), "d = 2020-01-01\n"),
            ("f = 1.5\n", "f", some(2.5), "f = 2.5\n"),
            ("\u{feff}\"ü\" = 'ä'\n", "ü", some("ö"), "\u{feff}\"ü\" = 'ö'\n"),
            ("[[x]]\nk = 1\n[[x]]\nk = 2\n", "x[1].k", some(3), "[[x]]\nk = 1\n[[x]]\nk = 3\n"),
            ("[s]\na = 1\nb = 2\n", "s", some(json!({"a": 1, "b": 3, "c": 4})), "[s]\na = 1\nb = 3\nc = 4\n"),
            ("a = 1", "a", some("tab\t\u{7f}"), "a = \"tab\\t\\u007F\""),
        ],
    );
    refuse(
        Format::Toml,
        &[
            ("a = 1\n", "a", some(Value::Null), "no null"),
            ("[s]\nk = 1\n", "s", None, "whole table"),
            ("[s]\nk = 1\n", "s", some(1), "whole table"),
            ("a = 1\na = 2\n", "a", some(1), "cannot be read as TOML: line 2"),
            ("a = nan\n", "a.b", some(1), "no number that can travel"),
            ("a = 1\n", "a.b", some(1), "something else in this file"),
            ("[[x]]\nk = 1\n", "x[1].k", some(1), "not added to a list"),
            ("l = [1]\n", "l[5]", some(1), "shorter"),
        ],
    );
    assert!(read(Format::Toml, "a = inf\n", "a").unwrap_err().contains("no number"));
}
