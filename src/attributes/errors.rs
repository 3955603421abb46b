//! Faults of one volume, told so that the pod's author can mend them from `kubectl describe pod`.

use std::fmt;
use thiserror::Error;

/// How much of a value a message repeats: an event holds 1,024 bytes and there may be several faults.
const SHOWN_CHARACTERS: usize = 80;

/// One fault of one attribute. Values of passwords and of unknown attributes are never in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum AttributeError {
    /// An attribute that must be there is not, or is empty.
    #[error("{attribute}: is required; accepted: {accepted}")]
    Missing {
        /// The attribute, with its prefix.
        attribute: String,
        /// What may stand there.
        accepted: String,
    },
    /// The value breaks the attribute's rule.
    #[error("{attribute}: {value} {problem}; accepted: {accepted}")]
    Invalid {
        /// The attribute, with its prefix.
        attribute: String,
        /// The value: quoted and cut, or hidden.
        value: String,
        /// What is wrong with it; reads on from the value.
        problem: String,
        /// What may stand there.
        accepted: String,
    },
    /// The attribute cannot stand beside another, or not without another.
    #[error("{attribute}: {problem}; accepted: {accepted}")]
    Conflict {
        /// The attribute, with its prefix.
        attribute: String,
        /// What it collides with.
        problem: String,
        /// What may stand there.
        accepted: String,
    },
    /// Nothing of this name exists. Its value may be a password under a mistyped name, so it is not told.
    #[error("{attribute}: is not a known attribute; the nearest known one is {nearest}")]
    Unknown {
        /// The attribute, with its prefix.
        attribute: String,
        /// The known attribute that resembles it most, with its prefix.
        nearest: String,
    },
}

impl AttributeError {
    /// The attribute at fault, with its prefix.
    pub fn attribute(&self) -> &str {
        match self {
            Self::Missing { attribute, .. }
            | Self::Invalid { attribute, .. }
            | Self::Conflict { attribute, .. }
            | Self::Unknown { attribute, .. } => attribute,
        }
    }
}

/// How many faults are told; a list can have thousands of wrong elements.
const TOLD: usize = 20;

/// The faults of one volume, ordered by attribute: the first twenty, and how many more there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeErrors {
    told: Vec<AttributeError>,
    more: usize,
}

impl AttributeErrors {
    /// Takes the faults in any order.
    pub(super) fn new(mut faults: Vec<AttributeError>) -> Self {
        faults.sort_by(|a, b| a.attribute().cmp(b.attribute()).then_with(|| a.cmp(b)));
        faults.dedup();
        let more = faults.len().saturating_sub(TOLD);
        faults.truncate(TOLD);
        Self { told: faults, more }
    }

    /// The faults that are told, ordered by attribute.
    pub fn iter(&self) -> std::slice::Iter<'_, AttributeError> {
        self.told.iter()
    }
}

impl<'a> IntoIterator for &'a AttributeErrors {
    type Item = &'a AttributeError;
    type IntoIter = std::slice::Iter<'a, AttributeError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for AttributeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.told.as_slice() {
            return only.fmt(f);
        }
        write!(f, "{} faults:", self.told.len() + self.more)?;
        for (number, fault) in (1..).zip(&self.told) {
            write!(f, " ({number}) {fault}")?;
        }
        if self.more > 0 { write!(f, " and {} more", self.more) } else { Ok(()) }
    }
}

impl std::error::Error for AttributeErrors {}

/// A value as a message shows it: quoted, control characters escaped, cut when long.
pub(super) fn shown(value: &str) -> String {
    let mut characters = value.chars();
    let head: String = characters.by_ref().take(SHOWN_CHARACTERS).collect();
    if characters.next().is_none() { format!("{head:?}") } else { format!("{head:?}...") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(attribute: &str) -> AttributeError {
        AttributeError::Missing { attribute: attribute.into(), accepted: "something".into() }
    }

    #[test]
    fn one_fault_is_told_without_a_number() {
        let errors = AttributeErrors::new(vec![missing("a/b")]);
        assert_eq!(errors.to_string(), "a/b: is required; accepted: something");
    }

    #[test]
    fn several_faults_are_told_in_the_order_of_their_attributes() {
        let errors = AttributeErrors::new(vec![missing("a/z"), missing("a/b"), missing("a/z")]);
        assert_eq!(
            errors.to_string(),
            "2 faults: (1) a/b: is required; accepted: something (2) a/z: is required; accepted: something"
        );
    }

    #[test]
    fn of_many_faults_the_first_are_told_and_the_rest_counted() {
        let many = (0..1000).map(|n| missing(&format!("a/{n:04}"))).collect();
        let text = AttributeErrors::new(many).to_string();
        assert!(text.starts_with("1000 faults: (1) a/0000: ") && text.ends_with(" and 980 more"), "{text}");
    }

    #[test]
    fn a_long_value_is_cut_and_control_characters_are_escaped() {
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        assert_eq!(shown(&"x".repeat(80)).len(), 82);
        assert_eq!(shown(&"x".repeat(81)), format!("\"{}\"...", "x".repeat(80)));
    }
}
