//! Distinguished names: what is read, and what is refused.

use super::*;
use proptest::prelude::*;

fn strict(text: &str) -> Result<String, String> {
    text.parse().map(|name: DistinguishedName| name.to_string())
}

#[test]
fn a_name_is_printed_in_its_strict_form_with_its_parts_in_order() {
    for (text, expected) in [
        ("CN=example.com", "CN=example.com"),
        ("cn = a , o= b c  ,C=US", "CN=a,O=b c,C=US"),
        ("SERIALNUMBER=42, L=here, ST=there, STREET=1 Road", "SERIALNUMBER=42,L=here,ST=there,STREET=1 Road"),
        ("OU=Sales+CN=J.  Smith,DC=example,DC=net", "OU=Sales+CN=J.  Smith,DC=example,DC=net"),
        (r#"CN=James \"Jim\" Smith\, III,UID=js"#, r"CN=James \22Jim\22 Smith\2C III,UID=js"),
        (r"CN=a\\\,b", r"CN=a\5C\2Cb"),
        (r"CN=\ a\20", r"CN=\20a\20"),
        (r"CN=\#a#b=c", r"CN=\23a#b=c"),
        (r"CN=Lu\C4\8Di\C4\87", "CN=Lu\u{10d}i\u{107}"),
        ("CN=B\u{fc}cher", "CN=B\u{fc}cher"),
        ("1.3.6.1.4.1.1466.0=#04024869", "1.3.6.1.4.1.1466.0=#04024869"),
        ("1.2.840.113549.1.9.1=a@b.example, O=x", "1.2.840.113549.1.9.1=a@b.example,O=x"),
        ("2.5.4.3=#0c0161 ,O=b", "CN=#0C0161,O=b"),
    ] {
        assert_eq!(strict(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_value_has_at_most_1024_bytes() {
    let length = 1024;
    for (keyword, value) in [("UID", "a"), ("DC", "A"), ("1.2.3", "\u{fc}")] {
        let longest = format!("{keyword}={},O=b", value.repeat(length / value.len()));
        assert!(strict(&longest).is_ok(), "{keyword}");
        let longer = format!("{keyword}={},O=b", value.repeat(length / value.len() + 1));
        assert!(strict(&longer).unwrap_err().contains("bytes long (at most 1024 are accepted)"), "{keyword}");
    }
    for (longest, longer) in
        [("CN=", 65), ("C=D", 2), ("O=", 65), ("L=", 129), ("SERIALNUMBER=", 65)].map(|(start, length)| {
            (format!("{start}{}", "a".repeat(length - 1)), format!("{start}{}", "a".repeat(length)))
        })
    {
        assert!(strict(&longest).is_ok() && strict(&longer).is_err(), "{longest}");
    }
    let der = |bytes: usize| format!("UID=#0c82{:04x}{}", bytes - 4, "61".repeat(bytes - 4));
    assert!(strict(&der(length)).is_ok());
    assert!(strict(&der(length + 1)).unwrap_err().contains("is 1025 bytes long"));
}

#[test]
fn a_hexadecimal_value_has_the_limits_of_its_attribute() {
    let der = |tag: u8, value: &[u8]| {
        assert!(value.len() < 128);
        let der = [&[tag, u8::try_from(value.len()).unwrap()], value].concat();
        format!("#{}", crate::model::hex(&der))
    };
    let (utf8, octets, printable, teletex, ia5, bmp) = (0x0c, 0x04, 0x13, 0x14, 0x16, 0x1e);
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
    let (long, longer) = ("a".repeat(64), "a".repeat(65));
    for (keyword, value) in [
        ("CN", der(utf8, long.as_bytes())),
        ("CN", der(bmp, &wide(&long[..60]))),
        ("CN", der(teletex, b"B\xfccher")),
        ("C", der(printable, b"DE")),
        ("DC", der(ia5, b"example")),
        ("1.2.3", der(octets, b"\x01\x02")),
        ("1.2.3", "#300302012a".to_owned()),
    ] {
        let text = format!("{keyword}={value}");
        assert!(strict(&text).is_ok(), "{text}: {:?}", strict(&text));
    }
    for (keyword, value, says) in [
        ("CN", der(utf8, longer.as_bytes()), "is 65 characters long"),
        ("OU", der(teletex, longer.as_bytes()), "is 65 characters long"),
        ("SERIALNUMBER", der(ia5, longer.as_bytes()), "is 65 characters long"),
        ("2.5.4.17", der(bmp, &wide(&long[..41])), "is 41 characters long"),
        ("C", der(utf8, b"DEU"), "two letters"),
        ("C", der(bmp, &wide("D1")), "two letters"),
        ("SERIALNUMBER", der(utf8, b"a_b"), "PrintableString"),
        ("DC", der(utf8, "\u{fc}".as_bytes()), "is not ASCII"),
        ("CN", der(utf8, b"a\nb"), "control character"),
        ("1.2.3", der(utf8, b"a\0"), "control character"),
        ("CN", der(utf8, b""), "is empty"),
        ("CN", der(octets, b"a"), "is no UTF8String"),
        ("CN", "#0500".to_owned(), "is no UTF8String"),
        ("CN", der(utf8, b"\xff"), "characters that its type of string"),
        ("CN", der(printable, b"a_b"), "characters that its type of string"),
        ("CN", der(ia5, b"\xfc"), "characters that its type of string"),
        ("CN", der(bmp, b"\0a\0"), "characters that its type of string"),
        ("CN", der(bmp, b"\xd8\x3d\xde\x00"), "characters that its type of string"),
        ("1.2.3", "#30030c02ff".to_owned(), "is not DER in its inner parts"),
        ("1.2.3", "#300330010a".to_owned(), "is not DER in its inner parts"),
    ] {
        let text = format!("{keyword}={value}");
        let problem = strict(&text).unwrap_err();
        assert!(problem.contains(says), "{text}: {problem}");
        assert!(as_go(&text).is_ok(), "{text}");
    }
}

#[test]
fn what_is_not_a_distinguished_name_is_refused() {
    for text in [
        "",
        "CN",
        "=a",
        "CN=",
        "CN= ",
        "CN=a,",
        "CN=a,,O=b",
        ",CN=a",
        "CN=a+",
        "XX=a",
        "1.2.x=a",
        "CN=a;O=b",
        "CN=\"a\"",
        r"CN=a\",
        r"CN=a\z",
        r"CN=a\4",
        r"CN=\FF",
        // A UniversalString.
        "O=#1c0400000061",
        "CN=#",
        "CN=#0",
        "CN=#zz",
        "CN=#0402",
        "CN=#0402486900",
        "C=\u{d6}",
        "DC=\u{fc}",
        "SERIALNUMBER=a_b",
        "CN=a\nb",
        r"CN=a\00",
        "CN=a+CN=a",
        "CN=a+2.5.4.3=a",
        "CN=a+CN=#0c0161",
        "2.5.4.6=\u{d6}",
        "/CN=a",
        "CN=#\u{fc}\u{fc}",
        "C=a*",
    ] {
        assert!(strict(text).is_err(), "{text:?} -> {:?}", strict(text));
    }
}

#[test]
fn a_long_name_is_cut_in_the_message() {
    for text in ["x".repeat(60_000), format!("{}=a", "x".repeat(60_000))] {
        let problem = strict(&text).unwrap_err();
        assert!(problem.len() < 150, "{}", problem.len());
    }
}

proptest! {
    #[test]
    fn the_strict_form_of_a_strict_form_is_itself(text in "(CN|o|1\\.2\\.3) ?= ?[a-z\\\\,+#\" ]{1,8}(, ?O=[a-z]{1,3})?") {
        if let Ok(once) = strict(&text) {
            prop_assert_eq!(strict(&once), Ok(once));
        }
    }

    #[test]
    fn an_escaped_value_reads_back(value in "[^\\p{Cc}]{1,20}") {
        let attribute = NameAttribute { oid: CN, value: NameValue::Text(value) };
        let name = DistinguishedName { parts: vec![vec![attribute]] };
        prop_assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn no_text_makes_it_panic(text in "(?s)(CN=)?[\\\\#,+= \"0-9a-fC\u{fc}]{0,16}|.{0,20}") {
        let _ = text.parse::<DistinguishedName>();
    }
}
