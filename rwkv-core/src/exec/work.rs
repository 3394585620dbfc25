//! What a token's time goes into.

use crate::image::Id;

/// A piece of work that is done; what came since the piece before it belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Work {
    /// 0 for the embedding, then the layers from 1 on, then the head.
    pub section: u16,
    /// The operation, by its record: of a product with a token shift, the matrix. `None` where
    /// vectors are moved and no record is read.
    pub id: Option<Id>,
    /// Which part of it.
    pub part: Part,
}

/// Parts of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Part {
    /// A row of the embedding as floats.
    Embed,
    /// A norm.
    Norm,
    /// The input of a product put in place, or its token shift.
    Shift,
    /// The input quantised and arranged.
    Quantise,
    /// Rows of a matrix times the input.
    Rows,
    /// Columns of a matrix times their inputs, those that are zero passed over.
    Columns,
    /// Rows scaled, activated and put where they go; of the head, whatever takes the logits.
    Store,
    /// A bias and its activation.
    Bias,
    /// A recurrence with its norm and gate.
    Recurrence,
    /// Vectors copied, blended or kept for the next token.
    Move,
    /// The state that an operation leaves to the next token. Its time is that of the other parts.
    State,
}

/// Numbers what the operations of a token write, within their sections: what is written is named
/// by its section and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Numbered(Option<Written>);

/// What of a token's operations was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Written {
    /// 0 for the embedding, then the layers from 1 on, then the head.
    pub section: u16,
    /// Which one in that section, from 0 on.
    pub operation: u16,
}

impl Numbered {
    /// A piece of what an operation writes, from element `first` on. Returns which one it is.
    pub fn piece(&mut self, work: Work, first: u32) -> Written {
        let section = work.section;
        let operation = match self.0 {
            Some(last) if last.section == section => {
                last.operation.wrapping_add(u16::from(first == 0))
            }
            _ => 0,
        };
        *self.0.insert(Written { section, operation })
    }
}
