//! Hundreds of volumes that must be refused, through the socket, each with its message.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[allow(unreachable_pub, reason = "the list is also the library's own tests'")]
#[path = "support/rejected.rs"]
mod rejected;
mod support;

use certlet_kubelet::Pod;
use rejected::rejected_inputs;
use std::fmt::Write;
use support::Node;
use tonic::Code;

node_test! {
    async fn every_bad_volume_is_refused_with_a_message_that_names_the_attribute() {
        let mut node = Node::new();
        let kubelet = node.started().await;
        let inputs = rejected_inputs();
        assert!(inputs.len() >= 300, "only {} inputs", inputs.len());
        let template = kubelet.publish_request(&Pod::new("shop", "web-0", [("", ""); 0]));
        let mut messages = String::new();
        for input in inputs {
            let mut request = template.clone();
            request.volume_context = input.attributes.into_iter().collect();
            let refused = kubelet.publish_with(request).await.expect_err(&input.name);
            assert_eq!(refused.code(), Code::InvalidArgument, "{}: {refused:?}", input.name);
            assert!(refused.message().contains(&input.attribute), "{}: {refused:?}", input.name);
            writeln!(messages, "{}\n    {}", input.name, refused.message()).unwrap();
        }
        assert!(node.stored().is_empty());
        insta::assert_snapshot!(messages);
    }
}
