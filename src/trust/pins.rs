//! Trust anchors that the operator pins to an issuer. The chain of its certificates must lead to one of them, and pods get them in
//! place of the CA that the signer names. So whoever controls an issuer's answers cannot change whom pods trust.

use crate::model::{Arn, IssuerRef, SignerSpec};
use crate::x509::pem;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use thiserror::Error;

/// Limit on a file, as on the CA bundle of a signer.
const MAX_BYTES: u64 = 64 * 1024;

/// What `ISSUER` can be in `--pin-ca ISSUER=FILE`.
const ACCEPTED: &str = "ISSUER=FILE, where ISSUER is KIND.GROUP/NAME (in each namespace), KIND.GROUP/NAMESPACE/NAME, \
    the ARN of a private CA, or local";

/// The anchors of one issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    issuer: PinnedIssuer,
    /// PEM certificates.
    file: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PinnedIssuer {
    CertManager {
        issuer: IssuerRef,
        /// None: in every namespace.
        namespace: Option<String>,
    },
    /// The ARN of its certificate authority.
    AcmPca(Arn),
    Local,
}

/// All pins of this node.
#[derive(Clone, Debug, Default)]
pub struct Pins(Vec<Pin>);

/// Why a file of pinned anchors cannot be used.
#[derive(Debug, Error)]
#[error("--pin-ca: {}: {reason}", .path.display())]
pub struct PinError {
    path: PathBuf,
    reason: String,
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let accepted = || format!("accepted: {ACCEPTED}");
        let (issuer, file) = text.split_once('=').ok_or_else(accepted)?;
        let issuer = PinnedIssuer::parse(issuer).filter(|_| !file.is_empty()).ok_or_else(accepted)?;
        Ok(Self { issuer, file: file.into() })
    }
}

impl PinnedIssuer {
    fn parse(text: &str) -> Option<Self> {
        if text == "local" {
            return Some(Self::Local);
        }
        if text.starts_with("arn:") {
            return Arn::parse(text).filter(|arn| arn.service() == "acm-pca").map(Self::AcmPca);
        }
        let (kind_and_group, rest) = text.split_once('/')?;
        let (kind, group) = kind_and_group.split_once('.')?;
        let (namespace, name) = match rest.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, rest),
        };
        let is_complete =
            [kind, group, name, namespace.as_deref().unwrap_or("-")].iter().all(|part| !part.is_empty());
        let issuer = IssuerRef { name: name.to_owned(), kind: kind.to_owned(), group: group.to_owned() };
        (is_complete && !name.contains('/')).then_some(Self::CertManager { issuer, namespace })
    }

    fn is_of(&self, signer: &SignerSpec, pod_namespace: &str) -> bool {
        match (self, signer) {
            (
                Self::CertManager { issuer, namespace },
                SignerSpec::CertManager { issuer: Some(asked), .. },
            ) => issuer == asked && namespace.as_ref().is_none_or(|namespace| namespace == pod_namespace),
            (Self::AcmPca(arn), SignerSpec::AcmPca(request)) => *arn == request.certificate_authority_arn,
            (Self::Local, SignerSpec::Local) => true,
            _ => false,
        }
    }

    /// A pin for one namespace comes before one for all.
    fn is_for_one_namespace(&self) -> bool {
        matches!(self, Self::CertManager { namespace: Some(_), .. })
    }
}

impl Pins {
    /// All pins, after a look at each file. An error if a file cannot be used, or an issuer is there twice.
    pub fn new(pins: Vec<Pin>) -> Result<Self, PinError> {
        for (index, Pin { issuer, file }) in pins.iter().enumerate() {
            if pins[..index].iter().any(|earlier| earlier.issuer == *issuer) {
                let reason = "its issuer has another pin; accepted: one file, with all anchors".to_owned();
                return Err(PinError { path: file.clone(), reason });
            }
            read(file)?;
        }
        Ok(Self(pins))
    }

    /// The file of the anchors that are pinned for this signer and a pod of this namespace.
    pub(crate) fn file_for(&self, signer: &SignerSpec, pod_namespace: &str) -> Option<&Path> {
        let pins = self.0.iter().filter(|pin| pin.issuer.is_of(signer, pod_namespace));
        pins.max_by_key(|pin| pin.issuer.is_for_one_namespace()).map(|pin| pin.file.as_path())
    }
}

/// The file's PEM certificates, at least one. It is read for each issuance, so that a changed file counts at once.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, PinError> {
    let failed = |reason: String| PinError { path: path.to_owned(), reason };
    let mut content = Vec::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(|error| failed(error.to_string()))?;
    if content.len() as u64 > MAX_BYTES {
        return Err(failed(format!("is too long; accepted are at most {MAX_BYTES} bytes")));
    }
    let blocks = pem::blocks(&content).map_err(|error| failed(format!("is not PEM: it {error}")))?;
    let is_certificates = blocks.iter().all(|block| block.label == "CERTIFICATE");
    if blocks.is_empty() || !is_certificates {
        return Err(failed("accepted are PEM certificates only, at least one".to_owned()));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;

    fn spec(kind: &str, name: &str) -> SignerSpec {
        let issuer = IssuerRef { name: name.into(), kind: kind.into(), group: "cert-manager.io".into() };
        SignerSpec::CertManager {
            issuer: Some(issuer),
            usage_words: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn a_pin_is_for_its_issuer_and_the_one_of_a_namespace_comes_first() {
        let pins = [
            "Issuer.cert-manager.io/mesh=all",
            "Issuer.cert-manager.io/shop/mesh=shop",
            "ClusterIssuer.cert-manager.io/mesh=cluster",
            "local=local",
        ];
        let pins = Pins(pins.iter().map(|pin| pin.parse().unwrap()).collect());
        let file = |spec: &SignerSpec, namespace: &str| {
            pins.file_for(spec, namespace).map(|path| path.display().to_string())
        };
        assert_eq!(file(&spec("Issuer", "mesh"), "shop").unwrap(), "shop");
        assert_eq!(file(&spec("Issuer", "mesh"), "other").unwrap(), "all");
        assert_eq!(file(&spec("ClusterIssuer", "mesh"), "shop").unwrap(), "cluster");
        assert_eq!(file(&SignerSpec::Local, "shop").unwrap(), "local");
        assert_eq!(file(&spec("Issuer", "another"), "shop"), None);
    }

    #[test]
    fn what_is_not_an_issuer_and_a_file_is_refused_with_what_is_accepted() {
        for text in [
            "",
            "=f",
            "local",
            "local=",
            "Issuer/mesh=f",
            "Issuer.group/=f",
            "Issuer.group//x=f",
            "Issuer.g/a/b/c=f",
            "arn:x=f",
        ] {
            let error = text.parse::<Pin>().unwrap_err();
            assert!(error.contains("KIND.GROUP/NAME"), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let pins = |text: &str| {
            fs::write(&file, text).unwrap();
            Pins::new(vec![format!("local={}", file.display()).parse().unwrap()]).unwrap_err().to_string()
        };
        for text in ["", "no certificate", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            let error = pins(text);
            assert!(error.starts_with("--pin-ca: ") && error.contains("PEM"), "{error}");
        }
        assert!(pins(&"x".repeat(70_000)).contains("at most 65536 bytes"));
        fs::remove_file(&file).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("No such file"));
    }
}
