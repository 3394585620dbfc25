//! The versions of RWKV, one file each, written as their formulas over an [`Executor`].

mod v4;
mod v7;

use crate::{exec::Executor, image::Version};

/// Computes one token (or, on a sequence executor, a run of them).
///
/// # Errors
/// The executor's.
pub async fn token<E: Executor>(version: Version, ex: &mut E) -> Result<(), E::Error> {
    match version {
        Version::V4 => v4::token(ex).await,
        Version::V7 => v7::token(ex).await,
    }
}
