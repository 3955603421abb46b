//! AWS Private CA and STS, as far as certlet talks to them: JSON 1.1 for the one, query and XML for the other, signed by
//! a real hierarchy, with faults on demand and every call counted.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "support for tests"
)]

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const CA: &str =
    "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555";
pub const ROLE: &str = "arn:aws:iam::123456789012:role/shop-web";

/// What goes wrong with a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// AWS's name for the error, and the HTTP status.
    Refuse(&'static str, u16),
    /// The call is carried out, and its answer is lost.
    LoseAnswer,
    /// The answer is not what it should be.
    Babble,
}

/// A CA of the fake.
#[derive(Clone, Debug)]
pub struct Description {
    pub status: &'static str,
    pub mode: &'static str,
    pub key: &'static str,
    pub not_after: u64,
}

#[derive(Default)]
struct Book {
    calls: HashMap<String, usize>,
    faults: HashMap<String, VecDeque<Fault>>,
    requests: Vec<(String, Value)>,
    callers: Vec<String>,
    tokens: HashMap<String, String>,
    issued: HashMap<String, (String, usize)>,
    not_ready: usize,
    sessions: Vec<String>,
}

/// The fake.
#[derive(Clone)]
pub struct FakePca(Arc<Inner>);

struct Inner {
    book: Mutex<Book>,
    description: Mutex<Description>,
    issuer: Issuer<'static, KeyPair>,
    chain: String,
    endpoint: String,
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl FakePca {
    /// Serves on loopback; its CA is the third level of a hierarchy.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (root, root_pem) = authority("root", None);
        let (middle, middle_pem) = authority("middle", Some(&root));
        let (issuer, issuer_pem) = authority("issuer", Some(&middle));
        let description = Description {
            status: "ACTIVE",
            mode: "GENERAL_PURPOSE",
            key: "EC_prime256v1",
            not_after: now() + 365 * 24 * 3600,
        };
        let fake = Self(Arc::new(Inner {
            book: Mutex::default(),
            description: Mutex::new(description),
            issuer,
            chain: format!("{issuer_pem}{middle_pem}{root_pem}").trim_end().to_owned(),
            endpoint,
        }));
        let app = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake
    }

    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap()
    }

    /// How often a call came.
    pub fn calls(&self, call: &str) -> usize {
        self.book().calls.get(call).copied().unwrap_or_default()
    }

    /// How many certificates were made.
    pub fn issued(&self) -> usize {
        self.book().issued.len()
    }

    /// What goes wrong with the next calls of a kind, one after the other.
    pub fn fail(&self, call: &str, faults: &[Fault]) {
        self.book().faults.entry(call.to_owned()).or_default().extend(faults.iter().cloned());
    }

    /// How often GetCertificate says that a certificate made from now on is not there yet.
    pub fn slow(&self, times: usize) {
        self.book().not_ready = times;
    }

    /// Changes the CA.
    pub fn describe(&self, change: impl FnOnce(&mut Description)) {
        change(&mut self.0.description.lock().unwrap());
    }

    /// The bodies of the calls of a kind.
    pub fn requests(&self, call: &str) -> Vec<Value> {
        self.book().requests.iter().filter(|(kind, _)| kind == call).map(|(_, body)| body.clone()).collect()
    }

    /// The access keys that IssueCertificate was signed with.
    pub fn callers(&self) -> Vec<String> {
        self.book().callers.clone()
    }

    /// The session names that STS was asked for.
    pub fn sessions(&self) -> Vec<String> {
        self.book().sessions.clone()
    }

    fn fault(&self, call: &str) -> Option<Fault> {
        self.book().faults.get_mut(call).and_then(VecDeque::pop_front)
    }
}

fn authority(name: &str, above: Option<&Issuer<'static, KeyPair>>) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = at(now() - 3600);
    params.not_after = at(now() + 10 * 365 * 24 * 3600);
    let certificate = match above {
        Some(above) => params.signed_by(&key, above).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    (Issuer::new(params, key), certificate.pem())
}

fn at(seconds: u64) -> time::OffsetDateTime {
    rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
}

async fn answer(State(fake): State<FakePca>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    let Some(call) = target.and_then(|target| target.strip_prefix("ACMPrivateCA.")) else {
        return sts(&fake, &String::from_utf8_lossy(&body));
    };
    let request: Value = serde_json::from_slice(&body).unwrap();
    {
        let mut book = fake.book();
        *book.calls.entry(call.to_owned()).or_default() += 1;
        book.requests.push((call.to_owned(), request.clone()));
    }
    let fault = fake.fault(call);
    if let Some(Fault::Refuse(code, status)) = fault {
        return refuse(code, status);
    }
    if request["CertificateAuthorityArn"] != CA {
        return refuse("ResourceNotFoundException", 400);
    }
    let done = match call {
        "IssueCertificate" => issue(&fake, &request, &headers),
        "GetCertificate" => collect(&fake, &request),
        "DescribeCertificateAuthority" => Ok(described(&fake)),
        "GetCertificateAuthorityCertificate" => Ok(json!({ "Certificate": first(&fake.0.chain) })),
        "RevokeCertificate" => Ok(json!({})),
        _ => Err("UnknownOperationException"),
    };
    match (done, fault) {
        (_, Some(Fault::LoseAnswer)) => refuse("InternalFailure", 500),
        (_, Some(Fault::Babble)) => in_json(200, &json!({ "Certificate": "<html>busy</html>" })),
        (Ok(body), _) => in_json(200, &body),
        (Err(code), _) => refuse(code, 400),
    }
}

fn refuse(code: &str, status: u16) -> Response {
    let body = json!({ "__type": code, "message": format!("the fake says {code}") });
    in_json(status, &body)
}

fn in_json(status: u16, body: &Value) -> Response {
    let kind = [("content-type", "application/x-amz-json-1.1")];
    (StatusCode::from_u16(status).unwrap(), kind, body.to_string()).into_response()
}

fn first(chain: &str) -> String {
    let end = "-----END CERTIFICATE-----";
    format!("{}{end}", chain.split(end).next().unwrap())
}

fn described(fake: &FakePca) -> Value {
    let Description { status, mode, key, not_after } = fake.0.description.lock().unwrap().clone();
    json!({ "CertificateAuthority": {
        "Arn": CA, "Status": status, "UsageMode": mode, "NotAfter": not_after,
        "CertificateAuthorityConfiguration": { "KeyAlgorithm": key, "SigningAlgorithm": "SHA256WITHECDSA", "Subject": {} },
    }})
}

fn issue(fake: &FakePca, request: &Value, headers: &HeaderMap) -> Result<Value, &'static str> {
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
    if let Some(arn) = fake.book().tokens.get(&token) {
        return Ok(json!({ "CertificateArn": arn }));
    }
    let template = request["TemplateArn"].as_str().unwrap().rsplit_once("template/").unwrap().1.to_owned();
    let certificate = certify(fake, &decode(request["Csr"].as_str().unwrap()), &template, until);
    let mut book = fake.book();
    let arn = format!("{CA}/certificate/{:032x}", book.issued.len() + 1);
    let not_ready = book.not_ready;
    book.callers.push(caller);
    book.tokens.insert(token, arn.clone());
    book.issued.insert(arn.clone(), (certificate, not_ready));
    Ok(json!({ "CertificateArn": arn }))
}

/// What each template makes of a request, after AWS's user guide.
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
    // AWS puts the beginning an hour back.
    csr.params.not_before = at(now() - 3600);
    csr.params.not_after = at(until);
    csr.params.serial_number = None;
    csr.signed_by(&fake.0.issuer).unwrap().pem().trim_end().to_owned()
}

fn collect(fake: &FakePca, request: &Value) -> Result<Value, &'static str> {
    let mut book = fake.book();
    let arn = request["CertificateArn"].as_str().unwrap();
    let (certificate, not_ready) = book.issued.get_mut(arn).ok_or("ResourceNotFoundException")?;
    if *not_ready > 0 {
        *not_ready -= 1;
        return Err("RequestInProgressException");
    }
    Ok(json!({ "Certificate": certificate, "CertificateChain": fake.0.chain }))
}

fn sts(fake: &FakePca, form: &str) -> Response {
    let field = |name: &str| {
        let found = form.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        found.unwrap_or_default().replace("%40", "@").replace("%3A", ":").replace("%2F", "/")
    };
    let call = field("Action");
    let session = field("RoleSessionName");
    {
        let mut book = fake.book();
        *book.calls.entry(call.clone()).or_default() += 1;
        book.sessions.push(session);
    }
    if let Some(Fault::Refuse(code, status)) = fake.fault(&call) {
        let body = format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}\
             </Code><Message>the fake says {code}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        );
        return (StatusCode::from_u16(status).unwrap(), [("content-type", "text/xml")], body).into_response();
    }
    assert_eq!((call.as_str(), field("RoleArn").as_str()), ("AssumeRoleWithWebIdentity", ROLE));
    assert_eq!(field("WebIdentityToken"), "pod-token");
    let body = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
        <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s\
        </SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
        </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
    ([("content-type", "text/xml")], body).into_response()
}

/// Base64, as the SDK sends blobs.
fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    String::from_utf8(out).unwrap()
}
