//! One poll of a future that never waits.

use core::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

/// Polls once. `None` if the future wants to wait, which futures over memory never do.
pub fn once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
