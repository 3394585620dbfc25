//! What the log says of types whose content is too long for it.

/// Implements `defmt::Format` by a few words, behind the feature `defmt` of the crate that calls it.
///
/// ```ignore
/// brief!(['a] Buffer<'a>, |buffer| "Buffer({} words)", buffer.words.len());
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! brief {
    ([$($generics:tt)*] $type:ty, |$this:ident| $text:tt $(, $value:expr)* $(,)?) => {
        #[cfg(feature = "defmt")]
        impl<$($generics)*> defmt::Format for $type {
            fn format(&self, f: defmt::Formatter<'_>) {
                let $this = self;
                defmt::write!(f, $text $(, $value)*);
            }
        }
    };
}
