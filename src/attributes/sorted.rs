//! The first look at a volume's attributes: which dialect, which of them are known, and what is left over.

use super::errors::AttributeError;
use super::rows::TABLE;
use super::table::Key;
use super::values::names::is_annotation_key;
use super::values::nearest::nearest;
use super::{Dialect, RawAttributes};
use std::collections::BTreeMap;

/// Attributes by key. An empty value counts as not given, as in cert-manager's csi-driver.
#[derive(Debug)]
pub(super) struct Sorted<'a> {
    pub(super) dialect: Dialect,
    pub(super) given: BTreeMap<Key, &'a str>,
    /// What is for the `CertificateRequest` rather than for us.
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) faults: Vec<AttributeError>,
}

impl<'a> Sorted<'a> {
    /// Sorts the attributes of one volume. `Err` when the dialect cannot be told.
    pub(super) fn new(raw: &'a RawAttributes) -> Result<Self, Vec<AttributeError>> {
        let dialect = dialect(raw)?;
        let mut sorted =
            Self { dialect, given: BTreeMap::new(), annotations: BTreeMap::new(), faults: Vec::new() };
        for (key, value) in &raw.0 {
            sorted.take(key, value).unwrap_or_else(|fault| sorted.faults.push(fault));
        }
        Ok(sorted)
    }

    fn take(&mut self, key: &str, value: &'a str) -> Result<(), AttributeError> {
        let Some((group, name)) = key.split_once('/') else {
            return Err(AttributeError::Conflict {
                attribute: key.to_owned(),
                problem: "has no prefix".into(),
                accepted: format!("{}/NAME", self.dialect.group()),
            });
        };
        if group == self.dialect.group() {
            let row = TABLE.iter().find(|row| row.name == name && row.belongs_to(self.dialect));
            let row = row.ok_or_else(|| unknown(key, name, self.dialect))?;
            if !value.is_empty() {
                self.given.insert(row.key, value);
            }
            return Ok(());
        }
        if self.dialect == Dialect::Certlet {
            return Err(AttributeError::Conflict {
                attribute: key.to_owned(),
                problem: "is neither an attribute nor, beside csi.certlet.io/ attributes, an annotation".into(),
                accepted: "csi.certlet.io/NAME; annotations of the CertificateRequest stand beside csi.cert-manager.io/ \
                           attributes only"
                    .into(),
            });
        }
        if !is_annotation_key(group, name) {
            return Err(AttributeError::Conflict {
                attribute: key.to_owned(),
                problem: "cannot be an annotation of the CertificateRequest".into(),
                accepted: "a host name, a slash, and at most 63 letters, digits, `-`, `_` and `.`".into(),
            });
        }
        self.annotations.insert(key.to_owned(), value.to_owned());
        Ok(())
    }
}

/// The dialect of a volume; one without a known prefix counts as ours, so that its author hears of ours.
fn dialect(raw: &RawAttributes) -> Result<Dialect, Vec<AttributeError>> {
    let first = |dialect: Dialect| {
        let of_dialect =
            |key: &&String| key.split_once('/').is_some_and(|(group, _)| group == dialect.group());
        raw.0.keys().find(of_dialect)
    };
    match (first(Dialect::CertManager), first(Dialect::Certlet)) {
        (Some(theirs), Some(ours)) => Err(vec![AttributeError::Conflict {
            attribute: ours.clone(),
            problem: format!("stands beside {theirs} in one volume"),
            accepted: "one prefix for the whole volume, csi.certlet.io/ or csi.cert-manager.io/".into(),
        }]),
        (Some(_), None) => Ok(Dialect::CertManager),
        (None, _) => Ok(Dialect::Certlet),
    }
}

fn unknown(key: &str, name: &str, dialect: Dialect) -> AttributeError {
    // Something that exists under our prefix only is best named as such.
    if TABLE.iter().any(|row| row.name == name) {
        return AttributeError::Unknown {
            attribute: key.to_owned(),
            nearest: format!("{}/{name}", Dialect::Certlet.group()),
        };
    }
    let names = TABLE.iter().filter(|row| row.belongs_to(dialect)).map(|row| row.name);
    let nearest = nearest(name, names).unwrap_or_default();
    AttributeError::Unknown { attribute: key.to_owned(), nearest: format!("{}/{nearest}", dialect.group()) }
}
