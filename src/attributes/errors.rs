//! Faults of one volume, worded so that the pod's author can fix them from `kubectl describe pod`.

use crate::model::{RawAttributes, shown};
use std::fmt::{self, Display};
use thiserror::Error;

/// One fault of one attribute. It never holds the value of a password or of an unknown attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
#[error("{attribute}: {problem}")]
pub struct AttributeError {
    attribute: String,
    problem: String,
    is_of_value: bool,
}

impl AttributeError {
    /// A fault of `attribute`, which is named with its prefix.
    pub(crate) fn new(attribute: impl Into<String>, problem: impl Display, accepted: impl Display) -> Self {
        let problem = format!("{problem}; accepted: {accepted}");
        Self { attribute: named(attribute.into()), problem, is_of_value: false }
    }

    /// The same fault, which the value has whatever the other attributes are.
    pub(super) fn of_value(self) -> Self {
        Self { is_of_value: true, ..self }
    }

    /// Whether the value has the fault whatever the other attributes are.
    pub(super) fn is_of_value(&self) -> bool {
        self.is_of_value
    }

    /// A required attribute is missing or empty.
    pub(super) fn missing(attribute: impl Into<String>, accepted: &str) -> Self {
        Self::new(attribute, "is required", accepted)
    }

    /// No attribute has this name. The value is not shown, since it may be a password under a mistyped name.
    pub(super) fn unknown(attribute: &str, nearest: &str) -> Self {
        let problem = format!("is not a known attribute; the nearest known one is {nearest}");
        Self { attribute: named(attribute.to_owned()), problem, is_of_value: false }
    }

    /// The attribute, with its prefix, as [`named`] shows it.
    pub fn attribute(&self) -> &str {
        &self.attribute
    }
}

/// The longest name of an attribute that a message shows as it is, in bytes. All known ones are shorter.
const MAX_PLAIN_NAME: usize = 80;

/// A name as a message shows it: an author may have written any. A long one is cut, and one with control characters is quoted.
pub(super) fn named(attribute: String) -> String {
    let is_plain = attribute.len() <= MAX_PLAIN_NAME && !attribute.contains(char::is_control);
    if is_plain { attribute } else { shown(&attribute) }
}

/// How many faults a message shows: a list can have thousands of wrong elements.
const MAX_SHOWN_FAULTS: usize = 10;

/// The faults of one volume, ordered by attribute: the first ten, and the number of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeErrors {
    first: Vec<AttributeError>,
    more: usize,
}

impl AttributeErrors {
    /// Takes the faults in any order.
    pub(crate) fn new(mut faults: Vec<AttributeError>) -> Self {
        faults.sort();
        faults.dedup();
        let more = faults.len().saturating_sub(MAX_SHOWN_FAULTS);
        faults.truncate(MAX_SHOWN_FAULTS);
        Self { first: faults, more }
    }

    /// The same faults of a volume of a class, whose author wrote `raw`: those of other attributes are the operator's to fix.
    pub(super) fn beside(mut self, raw: &RawAttributes) -> Self {
        for fault in &mut self.first {
            if !raw.map().contains_key(&fault.attribute) {
                fault.problem.push_str(" (the volume's class decides it)");
            }
        }
        self
    }

    /// The first faults, ordered by attribute.
    pub fn first(&self) -> &[AttributeError] {
        &self.first
    }
}

impl Display for AttributeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.first.as_slice() {
            return only.fmt(f);
        }
        write!(f, "{} faults:", self.first.len() + self.more)?;
        for (number, fault) in (1..).zip(&self.first) {
            write!(f, " ({number}) {fault}")?;
        }
        if self.more > 0 { write!(f, " and {} more", self.more) } else { Ok(()) }
    }
}

impl std::error::Error for AttributeErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(attribute: &str) -> AttributeError {
        AttributeError::missing(attribute, "something")
    }

    #[test]
    fn a_long_or_odd_name_is_shown_quoted_and_cut() {
        let unknown = |key: &str| AttributeError::unknown(key, "p/n").to_string();
        assert!(unknown("a/b").starts_with("a/b: is not"));
        assert!(unknown("a/b\n").starts_with("\"a/b\\n\": is not"));
        let long = unknown(&"x".repeat(60_000));
        assert!(long.starts_with("\"xxx") && long.len() < 250, "{}", long.len());
    }

    #[test]
    fn one_fault_has_no_number() {
        let errors = AttributeErrors::new(vec![missing("a/b")]);
        assert_eq!(errors.to_string(), "a/b: is required; accepted: something");
    }

    #[test]
    fn several_faults_are_listed_in_the_order_of_their_attributes() {
        let errors = AttributeErrors::new(vec![missing("a/z"), missing("a/b"), missing("a/z")]);
        assert_eq!(
            errors.to_string(),
            "2 faults: (1) a/b: is required; accepted: something (2) a/z: is required; accepted: something"
        );
    }

    #[test]
    fn of_many_faults_the_first_are_listed_and_the_rest_counted() {
        let many = (0..1000).map(|n| missing(&format!("a/{n:04}"))).collect();
        let text = AttributeErrors::new(many).to_string();
        assert!(text.starts_with("1000 faults: (1) a/0000: ") && text.ends_with(" and 990 more"), "{text}");
    }
}
