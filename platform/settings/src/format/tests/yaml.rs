//! YAML.

use super::*;

#[test]
fn yaml_is_changed_in_its_place() {
    check(
        Format::Yaml,
        &[
            ("a: 1 # one\n", "a", some(2), "a: 2 # one\n"),
            ("a: yes\n", "a", some(false), "a: false\n"),
            ("a: 'x'\nb: \"y\"\n", "a", some("it's"), "a: 'it''s'\nb: \"y\"\n"),
            ("a: 'x'\nb: \"y\"\n", "b", some("z"), "a: 'x'\nb: \"z\"\n"),
            ("a: x\n", "a", some("yes"), "a: \"yes\"\n"),
            ("a: x\n", "a", some("a: b"), "a: \"a: b\"\n"),
            ("a: x\n", "a", some("10.0.0.1/24"), "a: 10.0.0.1/24\n"),
            ("a: x\n", "a", some("52:54:00:12:34:56"), "a: \"52:54:00:12:34:56\"\n"),
            ("a: x\n", "a", some("0644"), "a: \"0644\"\n"),
            ("a:\r\n  b: 1\r\n  c: 2\r\n", "a.c", some(3), "a:\r\n  b: 1\r\n  c: 3\r\n"),
            ("a:\n  b: 1\n# end\nz: 1\n", "a.c", some("x"), "a:\n  b: 1\n  c: x\n# end\nz: 1\n"),
            ("a:\n    b: 1", "a.c.d", some("x"), "a:\n    b: 1\n    c:\n      d: x"),
            ("a:\n  b: 1\n  c: 2 # two\nd: 3\n", "a.c", None, "a:\n  b: 1\nd: 3\n"),
            ("a:\n  b: 1\n", "a.b", None, "a:\n  {}\n"),
            ("", "a.b", some(1), "a:\n  b: 1\n"),
            ("# nothing\n", "a", some(1), "# nothing\na: 1\n"),
            ("---\na: 1\n...\n", "a", some(2), "---\na: 2\n...\n"),
            ("{}\n", "a", some(1), "{a: 1}\n"),
            ("l:\n- 1\n- 2 # two\n", "l", some(json!([1, 3])), "l:\n- 1\n- 3 # two\n"),
            (
                "l:\n  - x\n  - y\nm: 1\n",
                "l",
                some(json!(["x", "y", "z"])),
                "l:\n  - x\n  - y\n  - z\nm: 1\n",
            ),
            ("l:\n  - x\n  - y\nm: 1\n", "l", some(json!(["x"])), "l:\n  - x\nm: 1\n"),
            ("l: [x, y]\n", "l", some(json!(["x", "q r", "[z]"])), "l: [x, q r, \"[z]\"]\n"),
            ("l: [x, y]\n", "l", some(json!(["x"])), "l: [x]\n"),
            ("l:\n  - k: 1\n    v: 2\n", "l[0].v", some(3), "l:\n  - k: 1\n    v: 3\n"),
            ("a:\nb: 1\n", "a", some("x"), "a: x\nb: 1\n"),
            ("b: 1\na:", "a", some("x"), "b: 1\na: x"),
            ("a: # none\nb: 1\n", "a.c", some("x"), "a: {c: x} # none\nb: 1\n"),
            ("t: |\n  one\n  two\nb: 1\n", "t", some("three\n\nfour\n"), "t: |\n  three\n\n  four\nb: 1\n"),
            ("t: >-\n  one\n  two\nb: 1\n", "b", some(2), "t: >-\n  one\n  two\nb: 2\n"),
            ("t: |\n  one\nb: 1\n", "c", some(2), "t: |\n  one\nb: 1\nc: 2\n"),
            ("b: 1\nt: |\n  one\n", "c", some(2), "b: 1\nt: |\n  one\nc: 2\n"),
            ("x: &x {k: 1}\ny: *x\nz: 1\n", "z", some(2), "x: &x {k: 1}\ny: *x\nz: 2\n"),
            ("x: &x 1\ny: *x\n", "y", some(2), "x: &x 1\ny: 2\n"),
            ("ü: ä # größe\nz: 1\n", "z", some("ö"), "ü: ä # größe\nz: ö\n"),
            ("\u{feff}a: 1\n", "a", some(2), "\u{feff}a: 2\n"),
            ("\"a.b\": 1\n", "\"a.b\"", some(2), "\"a.b\": 2\n"),
            ("a: 1\n", "b", some(json!({"k": ["x", 1]})), "a: 1\nb: {k: [x, 1]}\n"),
            ("a:\n  b: 1\nc: 2\n", "a", some("x"), "a: x\nc: 2\n"),
        ],
    );
    refuse(
        Format::Yaml,
        &[
            ("x: &x 1\ny: *x\n", "x", some(2), "without changing something else"),
            ("a: 1\n---\nb: 2\n", "a", some(2), "several documents"),
            ("a: 1\na: 2\n", "a", some(2), "twice"),
            ("a: [1\n", "a", some(2), "cannot be read as YAML"),
            ("d: &d {k: 1}\ne:\n  <<: *d\n", "e.k", some(2), "takes the names of another map"),
            ("a: 1\n", "a.b", some(2), "something else"),
        ],
    );
    for (odd, part) in [("a: 0644\n", "read differently"), ("a: !x 1\n", "tag"), ("a: .nan\n", "no number")] {
        assert!(read(Format::Yaml, odd, "a").unwrap_err().contains(part), "{odd}");
    }
}

#[test]
fn odd_yaml_is_answered() {
    // A comment's sign is none behind a carriage return alone; a parser's places are not always within the text.
    for odd in ["#é\r>\r", ":\r-\t[é]"] {
        for key in ["a", "b[0].c"] {
            let _ = read(Format::Yaml, odd, key);
            for value in [some(""), some(json!(["", ""])), None] {
                if let Ok(now) = change(Format::Yaml, odd, key, value.clone()) {
                    assert_eq!(read(Format::Yaml, &now, key), Ok(value), "{key} in {odd:?}");
                }
            }
        }
    }
}

#[test]
fn aliases_do_not_fill_the_memory() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(read(Format::Yaml, &text, "a0").is_err());
    let deep = format!("a: {}{}\n", "[".repeat(500), "]".repeat(500));
    assert!(read(Format::Yaml, &deep, "a").is_err());
}
