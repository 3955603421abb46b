//! Amazon Resource Names, as far as a private CA's is concerned.

/// A private CA's ARN, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AuthorityArn {
    whole: String,
    pub(crate) partition: String,
    pub(crate) region: String,
    pub(crate) account: String,
}

impl AuthorityArn {
    /// Takes `arn:PARTITION:acm-pca:REGION:ACCOUNT:certificate-authority/UUID` apart; attributes have been checked before.
    pub(crate) fn parse(arn: &str) -> Option<Self> {
        let mut parts = arn.splitn(6, ':');
        let (scheme, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let fits = scheme == "arn"
            && service == "acm-pca"
            && resource.starts_with("certificate-authority/")
            && ![partition, region, account].contains(&"");
        fits.then(|| Self {
            whole: arn.to_owned(),
            partition: partition.to_owned(),
            region: region.to_owned(),
            account: account.to_owned(),
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.whole
    }

    /// The ARN of one of AWS's own templates, in the partition of this CA.
    pub(crate) fn template(&self, name: &str) -> String {
        format!("arn:{}:acm-pca:::template/{name}", self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_account_and_partition_come_from_the_arn() {
        let arn = AuthorityArn::parse("arn:aws-cn:acm-pca:cn-north-1:123456789012:certificate-authority/1")
            .unwrap();
        assert_eq!((arn.region.as_str(), arn.account.as_str()), ("cn-north-1", "123456789012"));
        assert_eq!(
            arn.template("EndEntityCertificate/V1"),
            "arn:aws-cn:acm-pca:::template/EndEntityCertificate/V1"
        );
        for odd in ["", "arn:aws:acm:r:1:certificate/x", "arn:aws:acm-pca:::template/x"] {
            assert_eq!(AuthorityArn::parse(odd), None, "{odd}");
        }
    }
}
