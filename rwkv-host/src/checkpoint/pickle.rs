//! Reads the pickle inside a PyTorch checkpoint without executing it.
//!
//! A pickle is a program for a stack machine that can call any Python function. The machine here
//! knows only the instructions and the handful of globals from which `torch.save` builds a
//! dictionary of tensors, and each of them merely records its arguments.
//!
//! Values are small and `Copy`; tuples and dictionaries are index ranges of shared arenas. So
//! nothing recurses, sharing copies nothing, and memory is at most a constant times the pickle's
//! length, whatever it nests or memoises.

use std::collections::{BTreeMap, HashMap};

use super::{PickleError, map::Cursor, opcode as op, tensor::MAX_RANK};

/// Bytes of the longest pickle that is read: some thirty times that of a large model.
pub(super) const MAX_LEN: usize = 4 << 20;

/// One value of the dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Tensor(TensorRef<'a>),
    /// Something else, described.
    Other(&'static str),
}

/// A view of a storage, as claimed: nothing is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorRef<'a> {
    pub(super) storage: Storage<'a>,
    /// In values, as are the strides.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Storage<'a> {
    /// Python's name for the type, such as `FloatStorage`.
    pub(super) class: &'a str,
    /// Name of the member below `data/` in the archive.
    pub(super) key: &'a str,
}

/// The dictionary that a pickle builds. As in Python, the last value of a name wins.
pub(super) fn read(bytes: &[u8]) -> Result<BTreeMap<&str, Item<'_>>, PickleError> {
    if bytes.len() > MAX_LEN {
        return Err(PickleError::TooLong { len: bytes.len() });
    }
    Machine::new(bytes).run()
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    /// None, True or False: no tensor depends on them.
    Flag,
    Int(i64),
    /// No tensor depends on its value.
    Float,
    Text(&'a str),
    Global(Global<'a>),
    /// A range of `Machine::items`.
    Tuple {
        start: usize,
        len: usize,
    },
    /// The first field of its `Machine::pairs`.
    Dict(usize),
    /// An index of `Machine::storages`.
    Storage(usize),
    /// An index of `Machine::tensors`.
    Tensor(usize),
}

impl Value<'_> {
    fn describe(self) -> &'static str {
        match self {
            Self::Flag => "None or a truth value",
            Self::Int(_) | Self::Float => "a number",
            Self::Text(_) => "text",
            Self::Global(_) => "a Python type",
            Self::Tuple { .. } => "a tuple",
            Self::Dict(_) => "a dictionary",
            Self::Storage(_) => "a storage without a shape",
            Self::Tensor(_) => "a tensor",
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Global<'a> {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(&'a str),
}

impl<'a> Global<'a> {
    fn new(module: &str, name: &'a str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            (
                "torch",
                "FloatStorage" | "HalfStorage" | "BFloat16Storage" | "DoubleStorage"
                | "LongStorage" | "IntStorage" | "ShortStorage" | "CharStorage" | "ByteStorage"
                | "BoolStorage",
            ) => Some(Self::Storage(name)),
            _ => None,
        }
    }
}

struct Machine<'a> {
    input: Cursor<'a>,
    /// Offset of the current instruction.
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    /// Sparse, since an instruction may name any index.
    memo: HashMap<u32, Value<'a>>,
    items: Vec<Value<'a>>,
    /// Number of dictionaries so far.
    dicts: usize,
    pairs: Vec<(usize, Value<'a>, Value<'a>)>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<TensorRef<'a>>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            input: Cursor::new(bytes),
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            items: Vec::new(),
            dicts: 0,
            pairs: Vec::new(),
            storages: Vec::new(),
            tensors: Vec::new(),
        }
    }

    fn run(mut self) -> Result<BTreeMap<&'a str, Item<'a>>, PickleError> {
        loop {
            self.at = self.input.at();
            match self.byte()? {
                op::STOP => return self.dictionary(),
                code => self.step(code)?,
            }
        }
    }

    fn step(&mut self, code: u8) -> Result<(), PickleError> {
        match code {
            op::PROTO => drop(self.byte()?),
            op::FRAME => drop(self.array::<8>()?),
            op::NONE | op::NEWTRUE | op::NEWFALSE => self.stack.push(Value::Flag),
            op::BININT1 => {
                let value = self.byte()?;
                self.stack.push(Value::Int(value.into()));
            }
            op::BININT2 => {
                let value = u16::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(value.into()));
            }
            op::BININT => {
                let value = i32::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(value.into()));
            }
            op::BINFLOAT => {
                self.array::<8>()?;
                self.stack.push(Value::Float);
            }
            op::LONG1 => self.long()?,
            op::SHORT_BINUNICODE => {
                let len = self.byte()?;
                self.text(len.into())?;
            }
            op::BINUNICODE => {
                let len = u32::from_le_bytes(self.array()?);
                self.text(len as usize)?;
            }
            op::MARK => self.marks.push(self.stack.len()),
            op::EMPTY_TUPLE => self.tuple(0)?,
            op::TUPLE1 => self.tuple(1)?,
            op::TUPLE2 => self.tuple(2)?,
            op::TUPLE3 => self.tuple(3)?,
            op::TUPLE => {
                let len = self.above_mark()?;
                self.tuple(len)?;
            }
            op::EMPTY_DICT => self.new_dict(),
            op::SETITEM => self.set_items(2)?,
            op::SETITEMS => {
                let len = self.above_mark()?;
                self.set_items(len)?;
            }
            op::BINPUT => {
                let index = self.byte()?;
                self.put(index.into())?;
            }
            op::LONG_BINPUT => {
                let index = u32::from_le_bytes(self.array()?);
                self.put(index)?;
            }
            op::MEMOIZE => self.put(self.memo.len() as u32)?,
            op::BINGET => {
                let index = self.byte()?;
                self.get(index.into())?;
            }
            op::LONG_BINGET => {
                let index = u32::from_le_bytes(self.array()?);
                self.get(index)?;
            }
            op::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            op::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err(self.expected("a module and a name"));
                };
                self.global(module, name)?;
            }
            op::BINPERSID => self.storage()?,
            op::REDUCE => self.reduce()?,
            op::BUILD => self.build()?,
            code => return Err(PickleError::Opcode { at: self.at, code }),
        }
        Ok(())
    }

    fn dictionary(mut self) -> Result<BTreeMap<&'a str, Item<'a>>, PickleError> {
        let Value::Dict(root) = self.pop()? else {
            return Err(self.expected("a dictionary of tensors as the whole"));
        };
        let pairs = self.pairs.iter().filter(|pair| pair.0 == root);
        pairs
            .map(|&(_, key, value)| match (key, value) {
                (Value::Text(key), Value::Tensor(i)) => {
                    Ok((key, Item::Tensor(self.tensors[i].clone())))
                }
                (Value::Text(key), value) => Ok((key, Item::Other(value.describe()))),
                _ => Err(self.expected("text for each name of the dictionary")),
            })
            .collect()
    }

    fn expected(&self, expected: &'static str) -> PickleError {
        PickleError::Malformed { at: self.at, expected }
    }

    fn truncated(&self) -> PickleError {
        PickleError::Truncated { at: self.at }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        self.input.array().ok_or(self.truncated())
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        self.array().map(|[byte]| byte)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], PickleError> {
        self.input.take(len).ok_or(self.truncated())
    }

    fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str, PickleError> {
        std::str::from_utf8(bytes).map_err(|_| self.expected("text in UTF-8"))
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let end = self.input.rest().iter().position(|&byte| byte == b'\n');
        let line = self.take(end.ok_or(self.truncated())?)?;
        self.byte()?;
        self.utf8(line)
    }

    fn pop(&mut self) -> Result<Value<'a>, PickleError> {
        self.stack.pop().ok_or(self.expected("a value on the stack"))
    }

    /// Height of the stack below its top `len` values.
    fn below(&self, len: usize) -> Result<usize, PickleError> {
        self.stack.len().checked_sub(len).ok_or(self.expected("more values on the stack"))
    }

    /// Number of values above the last mark, which goes away.
    fn above_mark(&mut self) -> Result<usize, PickleError> {
        let len = self.marks.pop().and_then(|mark| self.stack.len().checked_sub(mark));
        len.ok_or(self.expected("a mark on the stack"))
    }

    fn long(&mut self) -> Result<(), PickleError> {
        let len = self.byte()?;
        let bytes = self.take(len.into())?;
        let mut value = match bytes.last() {
            Some(top) if top & 0x80 != 0 => [0xff; 8],
            _ => [0; 8],
        };
        let low = value.get_mut(..bytes.len());
        low.ok_or(self.expected("an integer of at most 64 bits"))?.copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(value)));
        Ok(())
    }

    fn text(&mut self, len: usize) -> Result<(), PickleError> {
        let bytes = self.take(len)?;
        self.stack.push(Value::Text(self.utf8(bytes)?));
        Ok(())
    }

    fn tuple(&mut self, len: usize) -> Result<(), PickleError> {
        let below = self.below(len)?;
        let start = self.items.len();
        self.items.extend(self.stack.drain(below..));
        self.stack.push(Value::Tuple { start, len });
        Ok(())
    }

    fn new_dict(&mut self) {
        self.stack.push(Value::Dict(self.dicts));
        self.dicts += 1;
    }

    /// Moves the top `len` values, names and values in turn, to the dictionary below them.
    fn set_items(&mut self, len: usize) -> Result<(), PickleError> {
        let below = self.below(len)?;
        let (under, items) = self.stack.split_at(below);
        let (&[.., Value::Dict(dict)], (pairs, [])) = (under, items.as_chunks()) else {
            return Err(self.expected("a dictionary, and names and values in turn"));
        };
        self.pairs.extend(pairs.iter().map(|&[name, value]| (dict, name, value)));
        self.stack.truncate(below);
        Ok(())
    }

    fn put(&mut self, index: u32) -> Result<(), PickleError> {
        let &value = self.stack.last().ok_or(self.expected("a value on the stack"))?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn get(&mut self, index: u32) -> Result<(), PickleError> {
        let &value = self.memo.get(&index).ok_or(self.expected("a value in the memo"))?;
        self.stack.push(value);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &'a str) -> Result<(), PickleError> {
        let global = Global::new(module, name)
            .ok_or_else(|| PickleError::Global { at: self.at, name: format!("{module}.{name}") })?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    /// `("storage", type, key, device, number of values)`
    fn storage(&mut self) -> Result<(), PickleError> {
        let id = match self.pop()? {
            Value::Tuple { start, len } => &self.items[start..start + len],
            _ => &[],
        };
        let &[
            Value::Text("storage"),
            Value::Global(Global::Storage(class)),
            Value::Text(key),
            _,
            _,
        ] = id
        else {
            return Err(self.expected("type and key of a storage"));
        };
        self.stack.push(Value::Storage(self.storages.len()));
        self.storages.push(Storage { class, key });
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), PickleError> {
        let (args, function) = (self.pop()?, self.pop()?);
        let (Value::Tuple { start, len }, Value::Global(function)) = (args, function) else {
            return Err(self.expected("a function and its arguments"));
        };
        match (function, &self.items[start..start + len]) {
            (Global::OrderedDict, []) => self.new_dict(),
            // Data, whether it needs a gradient, hooks.
            (Global::RebuildParameter, &[data @ Value::Tensor(_), _, _]) => self.stack.push(data),
            // Storage, offset, shape, strides, whether it needs a gradient, hooks, metadata.
            (
                Global::RebuildTensor,
                &[Value::Storage(storage), Value::Int(offset), shape, strides, ..],
            ) => {
                let (offset, shape, strides) =
                    (usize::try_from(offset).ok(), self.sizes(shape), self.sizes(strides));
                let (Some(offset), Some(shape), Some(strides)) = (offset, shape, strides) else {
                    return Err(self.expected("a shape and strides of at most 8 dimensions"));
                };
                let storage = self.storages[storage];
                self.stack.push(Value::Tensor(self.tensors.len()));
                self.tensors.push(TensorRef { storage, offset, shape, strides });
            }
            _ => return Err(self.expected("the arguments that `torch.save` writes")),
        }
        Ok(())
    }

    fn sizes(&self, value: Value<'a>) -> Option<Vec<usize>> {
        let Value::Tuple { start, len: len @ ..=MAX_RANK } = value else { return None };
        let size = |&item: &_| match item {
            Value::Int(size) => usize::try_from(size).ok(),
            _ => None,
        };
        self.items[start..start + len].iter().map(size).collect()
    }

    /// Attributes of a dictionary, such as the `_metadata` of a state dict, are dropped.
    fn build(&mut self) -> Result<(), PickleError> {
        self.pop()?;
        match self.stack.last() {
            Some(Value::Dict(_)) => Ok(()),
            _ => Err(self.expected("a dictionary to set attributes of")),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
