//! SPIFFE identities: what `spiffe: "true"` asks for, and what every X.509-SVID must be like.

use super::errors::AttributeError;
use super::fields::Fields;
use super::rows::{Key, TABLE};
use crate::model::{CertificateFacts, Dialect, Subject, SubjectAltNames, SubjectFields, Usage};

/// What every peer of a mesh needs, as server and as client.
pub(super) const USAGES: [Usage; 4] =
    [Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth, Usage::ClientAuth];

/// Whether a volume asks for the pod's SPIFFE ID: with `spiffe: "true"`, or as a volume of csi-driver-spiffe.
pub(super) fn is_asked_for(fields: &mut Fields<'_>) -> bool {
    fields.dialect == Dialect::CsiDriverSpiffe || fields.switch(Key::Spiffe) == Some(true)
}

/// The names of such a volume: no subject, and the pod's SPIFFE ID alone. Volumes of csi-driver-spiffe may have DNS names as well, if
/// the operator allows them.
pub(super) fn names(fields: &mut Fields<'_>, dns_names: Vec<String>) -> (Subject, SubjectAltNames) {
    let others =
        [Key::LiteralSubject, Key::DnsNames, Key::Services, Key::IpSans, Key::UriSans, Key::EmailSans];
    let of_subject = TABLE.iter().filter(|row| row.options.part_of_subject).map(|row| row.key);
    let names: Vec<Key> = of_subject.chain(others).collect();
    let problem = "cannot be combined with spiffe: \"true\", whose only name is the pod's SPIFFE ID";
    if fields.dialect == Dialect::Certlet {
        fields.refuse(&names, problem, "only one of the two");
    }
    let decided = "cannot be combined with spiffe: \"true\", which decides it";
    fields.refuse(&[Key::IsCa, Key::KeyUsages], decided, "only one of the two");
    let uris = id(fields).into_iter().collect();
    let names = SubjectAltNames { dns_names, uris, ..SubjectAltNames::default() };
    (Subject::Fields(SubjectFields::default()), names)
}

/// The pod's SPIFFE ID. Where the operator has taken the trust domain away, a running volume keeps the ID of its certificate.
fn id(fields: &mut Fields<'_>) -> Option<String> {
    let id = match (fields.spiffe_ids, fields.in_use.and_then(CertificateFacts::spiffe_id)) {
        (Some(ids), _) => ids.of(fields.pod).map_err(|problem| format!("gives an ID that {problem}")),
        (None, Some(in_use)) => Ok(in_use.to_owned()),
        (None, None) => Err("needs a trust domain, and the driver runs without --trust-domain".to_owned()),
    };
    id.map_err(|problem| match fields.dialect {
        Dialect::CsiDriverSpiffe => {
            let prefix = fields.dialect.prefix();
            let accepted = "a driver with a --trust-domain, and names that make a SPIFFE ID";
            fields.faults.push(AttributeError::new(format!("a volume of {prefix}/"), problem, accepted));
        }
        Dialect::CertManager | Dialect::Certlet => fields.invalid(Key::Spiffe, "true", &problem),
    })
    .ok()
}

/// Refuses what no verifier of X.509-SVIDs accepts (the X.509-SVID standard, sections 2, 4.3 and 5.2), under our own prefix. A
/// volume that was published before is exempt.
pub(super) fn check(fields: &mut Fields<'_>, uris: &[String], is_ca: bool, usages: &[Usage]) {
    let [id] = uris else { return };
    let Some(rest) = id.strip_prefix("spiffe://") else { return };
    if fields.dialect != Dialect::Certlet || fields.is_stored {
        return;
    }
    match (is_ca, rest.contains('/')) {
        (false, false) => fields.invalid(
            Key::UriSans,
            id,
            "has no path: it is the ID of a trust domain, which only a CA has (is-ca)",
        ),
        (true, true) => fields.invalid(
            Key::UriSans,
            id,
            "has a path, but is-ca is true: the ID of a CA is that of its trust domain",
        ),
        (true, false) | (false, true) => {}
    }
    if is_ca {
        return;
    }
    let given = fields.given(Key::KeyUsages).unwrap_or_default();
    if !usages.contains(&Usage::DigitalSignature) {
        let problem = "lacks `digital signature`, which a certificate with a SPIFFE ID must have";
        fields.invalid(Key::KeyUsages, given, problem);
    }
    for of_ca in [Usage::CertSign, Usage::CrlSign] {
        if usages.contains(&of_ca) {
            let problem = format!(
                "has `{of_ca}`, which a certificate with a SPIFFE ID must not have unless is-ca is true"
            );
            fields.invalid(Key::KeyUsages, given, &problem);
        }
    }
}
