//! Amazon resource names.

/// An Amazon resource name: `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`. A part may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Arn(String);

impl Arn {
    /// Reads an ARN. Returns none if the text does not have the six parts.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_arn = text.starts_with("arn:") && text.splitn(6, ':').count() == 6;
        is_arn.then(|| Self(text.to_owned()))
    }

    /// The whole ARN.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The partition, such as `aws` or `aws-cn`.
    pub(crate) fn partition(&self) -> &str {
        self.part(1)
    }

    /// The service, such as `acm-pca`.
    pub(crate) fn service(&self) -> &str {
        self.part(2)
    }

    /// The Region.
    pub(crate) fn region(&self) -> &str {
        self.part(3)
    }

    /// The number of the account.
    pub(crate) fn account(&self) -> &str {
        self.part(4)
    }

    /// The resource. It may contain colons.
    pub(crate) fn resource(&self) -> &str {
        self.part(5)
    }

    fn part(&self, index: usize) -> &str {
        self.0.splitn(6, ':').nth(index).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_has_six_parts() {
        let arn = Arn::parse("arn:aws-cn:acm-pca:cn-north-1:123456789012:certificate-authority/1").unwrap();
        assert_eq!((arn.partition(), arn.service()), ("aws-cn", "acm-pca"));
        assert_eq!((arn.region(), arn.account()), ("cn-north-1", "123456789012"));
        assert_eq!(arn.resource(), "certificate-authority/1");
        let log_group = Arn::parse("arn:aws:logs:r:1:log-group:a:*").unwrap();
        assert_eq!(log_group.resource(), "log-group:a:*");
        for other in ["", "arn", "arn:aws:acm-pca:r:1", "urn:aws:acm-pca:r:1:x"] {
            assert_eq!(Arn::parse(other), None, "{other}");
        }
    }
}
