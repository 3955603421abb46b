//! The CA: a hierarchy of three levels, and the certificates that it issues.

use super::{CA, Description, FakePca, now};
use axum::http::HeaderMap;
use base64ct::{Base64, Encoding};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};
use std::time::Duration;

/// A CA that the parent has signed, or a root, and its certificate in PEM.
pub fn authority(
    name: &str,
    parent: Option<&Issuer<'static, KeyPair>>,
) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = at(now() - 3600);
    params.not_after = at(now() + 10 * 365 * 24 * 3600);
    let certificate = match parent {
        Some(parent) => params.signed_by(&key, parent).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    (Issuer::new(params, key), certificate.pem())
}

pub(super) fn first(chain: &str) -> String {
    let end = "-----END CERTIFICATE-----";
    format!("{}{end}", chain.split(end).next().unwrap())
}

pub(super) fn described(fake: &FakePca) -> Value {
    let Description { status, mode, key, not_after } = fake.0.description.lock().unwrap().clone();
    json!({ "CertificateAuthority": {
        "Arn": CA, "Status": status, "UsageMode": mode, "NotAfter": not_after,
        "CertificateAuthorityConfiguration": { "KeyAlgorithm": key, "SigningAlgorithm": "SHA256WITHECDSA", "Subject": {} },
    }})
}

pub(super) fn issue(fake: &FakePca, request: &Value, headers: &HeaderMap) -> Result<Value, &'static str> {
    let Description { status, mode, not_after, .. } = fake.0.description.lock().unwrap().clone();
    let validity = &request["Validity"];
    let until = validity["Value"].as_u64().unwrap();
    assert_eq!(validity["Type"], "ABSOLUTE");
    if status != "ACTIVE" {
        return Err("InvalidStateException");
    }
    if until > not_after || (mode == "SHORT_LIVED_CERTIFICATE" && until > now() + 7 * 24 * 3600) {
        return Err("ValidationException");
    }
    if request["SigningAlgorithm"] != "SHA256WITHECDSA" {
        return Err("InvalidArgsException");
    }
    let caller = headers["authorization"].to_str().unwrap().split("Credential=").nth(1).unwrap();
    let caller = caller.split('/').next().unwrap().to_owned();
    let token = request["IdempotencyToken"].as_str().unwrap().to_owned();
    assert!(token.len() <= 36);
    if let Some(arn) = fake.state().tokens.get(&token) {
        return Ok(json!({ "CertificateArn": arn }));
    }
    let template = request["TemplateArn"].as_str().unwrap().rsplit_once("template/").unwrap().1.to_owned();
    let certificate = certify(fake, &decoded(request["Csr"].as_str().unwrap()), &template, until);
    let mut state = fake.state();
    let arn = format!("{CA}/certificate/{:032x}", state.issued.len() + 1);
    let not_ready = state.not_ready;
    state.callers.push(caller);
    state.tokens.insert(token, arn.clone());
    state.issued.insert(arn.clone(), (certificate, not_ready));
    Ok(json!({ "CertificateArn": arn }))
}

/// Issues a certificate like each template, according to the user guide of AWS.
fn certify(fake: &FakePca, csr_pem: &str, template: &str, until: u64) -> String {
    use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign, KeyEncipherment};
    let mut csr = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
    let own =
        |keys: &[KeyUsagePurpose], purposes: &[ExtendedKeyUsagePurpose]| (keys.to_vec(), purposes.to_vec());
    let own = match template {
        "EndEntityCertificate/V1" => {
            Some(own(&[DigitalSignature, KeyEncipherment], &[ServerAuth, ClientAuth]))
        }
        "EndEntityClientAuthCertificate/V1" => Some(own(&[DigitalSignature, KeyEncipherment], &[ClientAuth])),
        "EndEntityServerAuthCertificate/V1" => Some(own(&[DigitalSignature, KeyEncipherment], &[ServerAuth])),
        "CodeSigningCertificate/V1" => Some(own(&[DigitalSignature], &[CodeSigning])),
        "SubordinateCACertificate_PathLen0/V1" => Some(own(&[DigitalSignature, KeyCertSign, CrlSign], &[])),
        "BlankEndEntityCertificate_CSRPassthrough/V1" | "BlankEndEntityCertificate_APICSRPassthrough/V1" => {
            None
        }
        other => panic!("the fake does not know the template {other}"),
    };
    if let Some((keys, purposes)) = own {
        csr.params.key_usages = keys;
        csr.params.extended_key_usages = purposes;
    }
    csr.params.is_ca = if template.starts_with("Subordinate") {
        IsCa::Ca(BasicConstraints::Constrained(0))
    } else {
        IsCa::ExplicitNoCa
    };
    // AWS starts the validity an hour in the past.
    csr.params.not_before = at(now() - 3600);
    csr.params.not_after = at(until);
    csr.params.serial_number = None;
    csr.signed_by(&fake.0.issuer).unwrap().pem().trim_end().to_owned()
}

pub(super) fn collect(fake: &FakePca, request: &Value) -> Result<Value, &'static str> {
    let mut state = fake.state();
    let arn = request["CertificateArn"].as_str().unwrap();
    let (certificate, not_ready) = state.issued.get_mut(arn).ok_or("ResourceNotFoundException")?;
    if *not_ready > 0 {
        *not_ready -= 1;
        return Err("RequestInProgressException");
    }
    Ok(json!({ "Certificate": certificate, "CertificateChain": fake.0.chain }))
}

/// Decodes a blob of the SDK.
fn decoded(blob: &str) -> String {
    String::from_utf8(Base64::decode_vec(blob).unwrap()).unwrap()
}

fn at(seconds: u64) -> time::OffsetDateTime {
    rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
}
