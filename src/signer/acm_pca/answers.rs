//! Limits the answers of AWS.

use aws_sdk_acmpca::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_acmpca::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_acmpca::error::BoxError;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;
use std::mem;

/// Limit on the body of an answer. A certificate with its chain has a few KiB; more than 64 KiB of a chain are refused anyway.
const MAX_ANSWER: usize = 256 * 1024;

/// Ends an answer that is larger than [`MAX_ANSWER`] while it is read. The call then fails like one whose connection ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct LimitedAnswers;

impl Intercept for LimitedAnswers {
    fn name(&self) -> &'static str {
        "LimitedAnswers"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let all = mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(all, MAX_ANSWER));
        Ok(())
    }
}
