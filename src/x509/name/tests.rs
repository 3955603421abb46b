use super::*;
use proptest::prelude::*;
use x509_parser::prelude::FromDer;

fn round_trip(text: &str) -> String {
    let der = parse_rfc4514(text).unwrap();
    to_rfc4514(&X509Name::from_der(&der).unwrap().1)
}

#[test]
fn a_literal_subject_keeps_its_order() {
    let text = r"CN=b\, c,OU=x,OU=y,O=acme,DC=example,DC=org,C=DE";
    assert_eq!(round_trip(text), text);
    let der = parse_rfc4514("CN=leaf,C=DE").unwrap();
    let name = X509Name::from_der(&der).unwrap().1;
    assert_eq!(name.iter_attributes().next().unwrap().as_str().unwrap(), "DE");
}

#[test]
fn escapes_hex_and_multiple_values_are_read() {
    assert_eq!(round_trip(r"cn = \ a\+b\20 , O=x\;y"), r"CN=\ a\+b\ ,O=x\;y");
    assert_eq!(round_trip(r"CN=Lu\c4\8di\c4\87"), "CN=Lučić");
    assert_eq!(round_trip("CN=#0c03616263"), "CN=abc");
    assert_eq!(round_trip("1.2.3.4=#04020102"), "1.2.3.4=#04020102");
    assert_eq!(round_trip("UID=u+CN=c,O=o"), "CN=c+UID=u,O=o");
    assert_eq!(round_trip("  "), "");
}

#[test]
fn a_broken_literal_subject_says_where() {
    let error = |text| parse_rfc4514(text).unwrap_err();
    assert_eq!(error("CN=a,b"), NameError::NoType { part: "b".into() });
    assert_eq!(error("CN=a,"), NameError::NoType { part: String::new() });
    assert_eq!(error("XX=a"), NameError::UnknownType { name: "XX".into() });
    for text in [r"CN=\", r"CN=\zz", r"CN=\c4", "CN=#zz", "CN=#0c", "CN=#0c0361"] {
        assert_eq!(error(text), NameError::BadValue { name: "CN".into() }, "{text}");
    }
}

#[test]
fn single_attributes_come_in_the_order_of_go() {
    let some = |text: &str| vec![text.to_owned()];
    let fields = SubjectFields {
        common_name: Some("cn".into()),
        organizations: vec!["zeta".into(), "alpha".into()],
        organizational_units: some("ou"),
        countries: some("DE"),
        provinces: some("st"),
        localities: some("l"),
        street_addresses: some("street"),
        postal_codes: some("12345"),
        serial_number: Some("7".into()),
    };
    let der = from_fields(&fields);
    let text = to_rfc4514(&X509Name::from_der(&der).unwrap().1);
    // DER sorts the values of one relative name by their bytes: the shorter first here.
    assert_eq!(
        text,
        "SERIALNUMBER=7,CN=cn,OU=ou,O=zeta+O=alpha,POSTALCODE=12345,STREET=street,L=l,ST=st,C=DE"
    );
}

proptest! {
    #[test]
    fn any_value_survives_being_written_and_read(value in "\\PC{1,40}") {
        let der = from_fields(&SubjectFields { common_name: Some(value), ..Default::default() });
        let text = to_rfc4514(&X509Name::from_der(&der).unwrap().1);
        prop_assert_eq!(parse_rfc4514(&text).unwrap(), der);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,80}") {
        let _ = parse_rfc4514(&text);
    }
}

#[test]
fn white_space_that_is_no_space_belongs_to_the_value() {
    // RFC 4514 knows one kind of white space, the space (U+0020).
    let kept = parse_rfc4514("CN= \u{a0}x").unwrap();
    assert_eq!(kept, parse_rfc4514("CN=\\c2\\a0x").unwrap());
    assert_ne!(kept, parse_rfc4514("CN=x").unwrap());
}
