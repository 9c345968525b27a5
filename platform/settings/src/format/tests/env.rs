//! Variables, as shells and systemd read them.

use super::*;

#[test]
fn variables_are_changed_in_their_place() {
    check(
        Format::Env,
        &[
            ("A=1\n", "A", some("2"), "A=2\n"),
            ("# A=0\nexport A=\"x y\" # why\nB=2\n", "A", some("z"), "# A=0\nexport A=\"z\" # why\nB=2\n"),
            ("A='x'\n", "A", some("y z"), "A='y z'\n"),
            ("A='x'\n", "A", some("it's"), "A=\"it's\"\n"),
            ("A=x\n", "A", some("y z"), "A=\"y z\"\n"),
            ("A=x\n", "A", some("$1 `\"\\"), "A=\"\\$1 \\`\\\"\\\\\"\n"),
            ("A=x # one\nB=\n", "A", some("y"), "A=y # one\nB=\n"),
            ("A=1\r\nB=2\r\n", "B", some("3"), "A=1\r\nB=3\r\n"),
            ("A=1", "B", some("2"), "A=1\nB=2"),
            ("A=1\nB=2", "B", None, "A=1"),
            ("export A=1\n", "B", some("2"), "export A=1\nexport B=2\n"),
            ("", "B", some("2"), "B=2\n"),
            ("# none\n", "B", some("2"), "# none\nB=2\n"),
            ("A=\"one\ntwo\"\nB=1\n", "A", some("one"), "A=\"one\"\nB=1\n"),
            ("A=ä\n", "A", some("ö"), "A=ö\n"),
            ("A=1\nA=2\n", "A", some(json!(["1", "3"])), "A=1\nA=3\n"),
            ("\u{feff}A=1\n", "A", some("2"), "\u{feff}A=2\n"),
            ("A=\n", "A", some("x"), "A=x\n"),
        ],
    );
    refuse(
        Format::Env,
        &[
            ("A=$B/c\n", "A", some("2"), "other variables"),
            ("A=\"$B\"\n", "A", some("2"), "other variables"),
            ("A=a'b'c\n", "A", some("2"), "several pieces"),
            ("A='a'b\n", "A", some("2"), "several pieces"),
            ("A=\"a\nB=1\n", "A", some("2"), "not closed"),
            ("A=1\n", "A.b", some("2"), "name"),
            ("A=1\n", "1A", some("2"), "no name of a variable"),
        ],
    );
}
