//! JSON, with comments and commas at the end.

use super::*;

#[test]
fn json_is_changed_in_its_place() {
    check(
        Format::Json,
        &[
            ("{\"a\":1}", "a", some(2), "{\"a\":2}"),
            (
                "{\n  // one\n  \"a\": 1, // two\n  /* three */ \"b\": [1, 2,],\n}\n",
                "b",
                some(json!([1, 4])),
                "{\n  // one\n  \"a\": 1, // two\n  /* three */ \"b\": [1, 4,],\n}\n",
            ),
            ("{\n  \"a\": 1 // one\n}\n", "b", some("x"), "{\n  \"a\": 1, // one\n  \"b\": \"x\"\n}\n"),
            ("{\r\n  \"a\": 1\r\n}", "b", some("x"), "{\r\n  \"a\": 1,\r\n  \"b\": \"x\"\r\n}"),
            ("{\n  \"a\": 1,\n}\n", "b", some("x"), "{\n  \"a\": 1,\n  \"b\": \"x\",\n}\n"),
            ("{}", "a.b", some(1), "{\"a\": {\"b\":1}}"),
            ("", "a", some(1), "{\"a\":1}"),
            ("{\"a\": 1, \"b\": 2}", "a", None, "{\"b\": 2}"),
            ("{\"a\": 1, \"b\": 2}", "b", None, "{\"a\": 1}"),
            ("{\"a\": 1}", "a", None, "{}"),
            ("{\n  \"a\": 1,\n  \"b\": 2 // two\n}\n", "b", None, "{\n  \"a\": 1\n}\n"),
            ("{\n  \"a\": 1,\n  // of c\n  \"c\": 2\n}\n", "a", None, "{\n  // of c\n  \"c\": 2\n}\n"),
            (
                "{\"x\": {\"a\": [{\"k\": 1}]}}",
                "x.a[0].k",
                some(json!({"n": null})),
                "{\"x\": {\"a\": [{\"k\": {\"n\":null}}]}}",
            ),
            ("{\"ü\": \"\\u00e4\"}", "ü", some("ö\"\n"), "{\"ü\": \"ö\\\"\\n\"}"),
            ("\u{feff}{\"a\": 1}", "a", some(2), "\u{feff}{\"a\": 2}"),
            ("{\"a.b\": 1}", "\"a.b\"", some(false), "{\"a.b\": false}"),
            ("{\"l\": [1, 2, 3]}", "l", some(json!([1])), "{\"l\": [1]}"),
            ("{\"l\": []}", "l", some(json!([1, 2])), "{\"l\": [1,2]}"),
            ("{\"a\": null}", "a", some(1), "{\"a\": 1}"),
        ],
    );
    refuse(
        Format::Json,
        &[
            ("{\"a\": 1, \"a\": 2}", "a", some(1), "twice"),
            ("{a: 1}", "a", some(1), "cannot be read as JSON"),
            ("{\"a\": 1", "a", some(1), "cannot be read as JSON"),
            ("{\"a\": 1}", "a.b", some(1), "something else"),
            ("[1]", "a", some(1), "something else"),
        ],
    );
    for odd in ["{\"a\": 123456789012345678901234567890}", "{\"a\": 0.12345678901234567890123}"] {
        assert!(read(Format::Json, odd, "a").unwrap_err().contains("64 bits"));
    }
}
