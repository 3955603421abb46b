use super::*;
use crate::model::{Dialect, SubjectFields};
use crate::x509::testing::{encoded, name};
use proptest::prelude::*;
use x509_parser::prelude::FromDer;

fn round_trip(text: &str) -> String {
    let der = name(text);
    to_rfc4514(&X509Name::from_der(&der).unwrap().1)
}

#[test]
fn a_literal_subject_keeps_its_order() {
    let text = r"CN=b\, c,OU=x,OU=y,O=acme,DC=example,DC=org,C=DE";
    assert_eq!(round_trip(text), text);
    let der = name("CN=leaf,C=DE");
    let encoded = X509Name::from_der(&der).unwrap().1;
    assert_eq!(encoded.iter_attributes().next().unwrap().as_str().unwrap(), "DE");
}

#[test]
fn escapes_hex_and_multiple_values_are_read() {
    assert_eq!(round_trip(r"cn = \ a\+b\20 , O=x\;y"), r"CN=\ a\+b\ ,O=x\;y");
    assert_eq!(round_trip(r"CN=Lu\c4\8di\c4\87"), "CN=Lučić");
    assert_eq!(round_trip("CN=#0c03616263"), "CN=abc");
    assert_eq!(round_trip("1.2.3.4=#04020102"), "1.2.3.4=#04020102");
    assert_eq!(round_trip("UID=u+CN=c,O=o"), "CN=c+UID=u,O=o");
}

#[test]
fn a_domain_component_is_an_ia5_string() {
    let tags = |text: &str| -> Vec<u32> {
        let der = name(text);
        let (_, parsed) = X509Name::from_der(&der).unwrap();
        parsed.iter_attributes().map(|attribute| attribute.attr_value().header.tag().0).collect()
    };
    assert_eq!(tags("CN=a,DC=example,DC=org"), [0x16, 0x16, 0x13]);
    assert_eq!(tags("1.2.840.113549.1.9.1=a@example.org"), [0x16]);
    assert_eq!(tags("1.2.840.113549.1.9.1=ä@example.org"), [0x0c]);
    // Go knows no IA5String here.
    let subject = Subject::Literal("DC=example,1.2.840.113549.1.9.1=a@example.org".parse().unwrap());
    let der = encode(&subject, Dialect::CertManager).unwrap().to_der().unwrap();
    let (_, parsed) = X509Name::from_der(&der).unwrap();
    let tags: Vec<_> =
        parsed.iter_attributes().map(|attribute| attribute.attr_value().header.tag().0).collect();
    assert_eq!(tags, [0x0c, 0x13]);
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
    let text = |dialect| {
        let der = encode(&Subject::Fields(fields.clone()), dialect).unwrap().to_der().unwrap();
        to_rfc4514(&X509Name::from_der(&der).unwrap().1)
    };
    // DER sorts the values of one relative name by their bytes: the shorter first here.
    assert_eq!(
        text(Dialect::CertManager),
        "SERIALNUMBER=7,CN=cn,OU=ou,O=zeta+O=alpha,POSTALCODE=12345,STREET=street,L=l,ST=st,C=DE"
    );
    // RFC 4514 begins with the last.
    assert_eq!(
        text(Dialect::Certlet),
        "SERIALNUMBER=7,CN=cn,OU=ou,O=alpha,O=zeta,POSTALCODE=12345,STREET=street,L=l,ST=st,C=DE"
    );
}

proptest! {
    #[test]
    fn any_value_survives_being_written_and_read(value in "\\PC{1,40}") {
        let der = encoded(&Subject::Fields(SubjectFields { common_name: Some(value), ..Default::default() }));
        let text = to_rfc4514(&X509Name::from_der(&der).unwrap().1);
        prop_assert_eq!(name(&text), der);
    }
}

#[test]
fn white_space_that_is_no_space_belongs_to_the_value() {
    // RFC 4514 knows one kind of white space, the space (U+0020).
    let kept = name("CN= \u{a0}x");
    assert_eq!(kept, name("CN=\\c2\\a0x"));
    assert_ne!(kept, name("CN=x"));
}
