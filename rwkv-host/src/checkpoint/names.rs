//! Other names for the official tensors, and how those lie in them.
//!
//! Each naming is a table that is read from the top: the first row whose left side starts a name
//! replaces it by the right side. Names that no row starts stay as they are.

use std::{collections::BTreeMap, mem, path::Path};

use super::{CheckpointError, Index, tensor::Entry};

/// How the tensors of a model are named.
pub(super) struct Naming {
    /// What the names of all layers start with; a number follows.
    layers: &'static str,
    /// Outside the layers.
    outer: &'static [Row],
    /// In a layer, after its number.
    inner: &'static [Row],
}

type Row = (&'static str, &'static str, Form);

/// How the official tensor lies in the stored one.
#[derive(Clone, Copy)]
enum Form {
    /// As it is.
    Same,
    /// With the last two dimensions exchanged.
    Transposed,
    /// One of several along the first dimension, whose names end in these letters.
    Joined(&'static str),
}

use Form::{Joined, Same, Transposed};

/// Of Hugging Face `transformers` for version 4, and of the models RWKV/rwkv-5-world and
/// RWKV/v6-Finch.
const HUGGING_FACE: Naming = Naming {
    layers: "rwkv.blocks.",
    outer: &[("rwkv.embeddings.", "emb.", Same), ("rwkv.ln_out.", "ln_out.", Same)],
    inner: &[
        ("pre_ln.", "ln0.", Same),
        ("attention.time_mix_key", "att.time_mix_k", Same),
        ("attention.time_mix_value", "att.time_mix_v", Same),
        ("attention.time_mix_receptance", "att.time_mix_r", Same),
        ("attention.time_mix_gate", "att.time_mix_g", Same),
        ("attention.", "att.", Same),
        ("feed_forward.time_mix_key", "ffn.time_mix_k", Same),
        ("feed_forward.time_mix_receptance", "ffn.time_mix_r", Same),
        ("feed_forward.", "ffn.", Same),
    ],
};

/// Of flash-linear-attention for version 7. Early files join the weights of the token shift.
const FLASH_LINEAR_ATTENTION: Naming = Naming {
    layers: "model.layers.",
    outer: &[
        ("model.embeddings.", "emb.", Same),
        ("model.norm.", "ln_out.", Same),
        ("lm_head.", "head.", Same),
    ],
    inner: &[
        ("pre_norm.", "ln0.", Same),
        ("attn_norm.", "ln1.", Same),
        ("ffn_norm.", "ln2.", Same),
        ("attn.r_proj.", "att.receptance.", Same),
        ("attn.k_proj.", "att.key.", Same),
        ("attn.v_proj.", "att.value.", Same),
        ("attn.o_proj.", "att.output.", Same),
        ("attn.g_norm.", "att.ln_x.", Same),
        ("attn.x_x", "att.x_", Joined("rwkvag")),
        ("attn.w_lora.lora.0.weight", "att.w1", Transposed),
        ("attn.w_lora.lora.2.weight", "att.w2", Transposed),
        ("attn.w_lora.lora.2.bias", "att.w0", Same),
        ("attn.a_lora.lora.0.weight", "att.a1", Transposed),
        ("attn.a_lora.lora.2.weight", "att.a2", Transposed),
        ("attn.a_lora.lora.2.bias", "att.a0", Same),
        ("attn.v_lora.lora.0.weight", "att.v1", Transposed),
        ("attn.v_lora.lora.2.weight", "att.v2", Transposed),
        ("attn.v_lora.lora.2.bias", "att.v0", Same),
        ("attn.g_lora.lora.0.weight", "att.g1", Transposed),
        ("attn.g_lora.lora.2.weight", "att.g2", Transposed),
        ("attn.", "att.", Same),
    ],
};

/// Of GGUF for version 6.
pub(super) const GGUF_6: Naming = Naming {
    layers: "blk.",
    outer: GGUF_OUTER,
    inner: &[
        ("attn_norm.", "ln1.", Same),
        ("attn_norm_2.", "ln2.", Same),
        ("time_mix_ln.", "att.ln_x.", Same),
        ("time_mix_lerp_x.weight", "att.time_maa_x", Same),
        ("time_mix_lerp_fused.weight", "att.time_maa_", Joined("wkvrg")),
        ("time_mix_lerp_w.weight", "att.time_maa_w", Same),
        ("time_mix_lerp_k.weight", "att.time_maa_k", Same),
        ("time_mix_lerp_v.weight", "att.time_maa_v", Same),
        ("time_mix_lerp_r.weight", "att.time_maa_r", Same),
        ("time_mix_lerp_g.weight", "att.time_maa_g", Same),
        ("time_mix_w1.weight", "att.time_maa_w1", Transposed),
        ("time_mix_w2.weight", "att.time_maa_w2", Transposed),
        ("time_mix_decay_w1.weight", "att.time_decay_w1", Transposed),
        ("time_mix_decay_w2.weight", "att.time_decay_w2", Transposed),
        ("time_mix_decay.weight", "att.time_decay", Same),
        ("time_mix_first.weight", "att.time_faaaa", Same),
        ("time_mix_", "att.", Same),
        ("channel_mix_lerp_k.weight", "ffn.time_maa_k", Same),
        ("channel_mix_lerp_r.weight", "ffn.time_maa_r", Same),
        ("channel_mix_", "ffn.", Same),
    ],
};

/// Of GGUF for version 7.
pub(super) const GGUF_7: Naming = Naming {
    layers: "blk.",
    outer: GGUF_OUTER,
    inner: &[
        ("attn_norm.", "ln1.", Same),
        ("attn_norm_2.", "ln2.", Same),
        ("time_mix_ln.", "att.ln_x.", Same),
        ("time_mix_lerp_fused.weight", "att.x_", Joined("rwkvag")),
        ("time_mix_w0.weight", "att.w0", Same),
        ("time_mix_w1.weight", "att.w1", Transposed),
        ("time_mix_w2.weight", "att.w2", Transposed),
        ("time_mix_a0.weight", "att.a0", Same),
        ("time_mix_a1.weight", "att.a1", Transposed),
        ("time_mix_a2.weight", "att.a2", Transposed),
        ("time_mix_v0.weight", "att.v0", Same),
        ("time_mix_v1.weight", "att.v1", Transposed),
        ("time_mix_v2.weight", "att.v2", Transposed),
        ("time_mix_g1.weight", "att.g1", Transposed),
        ("time_mix_g2.weight", "att.g2", Transposed),
        ("time_mix_k_k.weight", "att.k_k", Same),
        ("time_mix_k_a.weight", "att.k_a", Same),
        ("time_mix_r_k.weight", "att.r_k", Same),
        ("time_mix_", "att.", Same),
        ("channel_mix_lerp_k.weight", "ffn.x_k", Same),
        ("channel_mix_", "ffn.", Same),
    ],
};

const GGUF_OUTER: &[Row] = &[
    ("token_embd.", "emb.", Same),
    ("token_embd_norm.", "blocks.0.ln0.", Same),
    ("output_norm.", "ln_out.", Same),
    ("output.", "head.", Same),
];

const OFFICIAL: Naming = Naming { layers: "blocks.", outer: &[], inner: &[] };

/// What wrappers of a model put before every name.
const WRAPPERS: [&str; 4] = ["_forward_module.", "module.", "model.", "_orig_mod."];

type Entries = BTreeMap<String, Entry>;
/// What cannot be a weight, by name.
type Skipped = BTreeMap<String, String>;

/// The tensors under their official names. Names of no known naming stay as they are.
pub(super) fn official(path: &Path, index: &mut Index) -> Result<(), CheckpointError> {
    // Each wrapper once, in any order: a hostile name could go on for ever.
    for _ in 0..=WRAPPERS.len() {
        let names = index.entries.keys().chain(index.skipped.keys());
        for naming in [OFFICIAL, HUGGING_FACE, FLASH_LINEAR_ATTENTION] {
            if names.clone().any(|name| name.starts_with(naming.layers)) {
                index.entries = naming.rename(path, mem::take(&mut index.entries))?;
                index.skipped = naming.rename_skipped(mem::take(&mut index.skipped));
                return Ok(());
            }
        }
        let wraps = |wrapper: &&str| index.entries.keys().all(|name| name.starts_with(wrapper));
        let Some(wrapper) = WRAPPERS.into_iter().find(wraps) else { break };
        let strip = |(name, entry): (String, Entry)| (name[wrapper.len()..].to_owned(), entry);
        index.entries = mem::take(&mut index.entries).into_iter().map(strip).collect();
        // Something beside the weights may stand outside the wrapper.
        let strip = |(name, found): (String, String)| match name.strip_prefix(wrapper) {
            Some(rest) => (rest.to_owned(), found),
            None => (name, found),
        };
        index.skipped = mem::take(&mut index.skipped).into_iter().map(strip).collect();
    }
    Ok(())
}

impl Naming {
    /// The tensors under their official names and in their official form.
    pub(super) fn rename(&self, path: &Path, stored: Entries) -> Result<Entries, CheckpointError> {
        let mut renamed = Entries::new();
        for (name, entry) in stored {
            let (tensor, form) = self.translate(&name);
            let shape = entry.shape.clone();
            for (tensor, entry) in form.apply(tensor, entry).ok_or_else(|| {
                let (path, expected) = (path.into(), form.expected());
                CheckpointError::Form { path, tensor: name, shape, expected }
            })? {
                let path = path.into();
                match renamed.insert(tensor.clone(), entry) {
                    None => {}
                    Some(_) => return Err(CheckpointError::Twice { path, tensor }),
                }
            }
        }
        Ok(renamed)
    }

    /// What cannot be weights, under the official names of the tensors that it would be.
    fn rename_skipped(&self, skipped: Skipped) -> Skipped {
        let mut renamed = Skipped::new();
        for (name, found) in skipped {
            let (tensor, form) = self.translate(&name);
            renamed.extend(form.names(tensor).into_iter().map(|name| (name, found.clone())));
        }
        renamed
    }

    fn translate(&self, name: &str) -> (String, Form) {
        let layer = name.strip_prefix(self.layers).and_then(|rest| rest.split_once('.'));
        let (prefix, rest, rows) = match layer {
            Some((layer, rest)) => (format!("blocks.{layer}."), rest, self.inner),
            None => (String::new(), name, self.outer),
        };
        let row = rows.iter().find_map(|(stored, official, form)| {
            Some((*official, rest.strip_prefix(stored)?, *form))
        });
        let (official, rest, form) = row.unwrap_or(("", rest, Same));
        (format!("{prefix}{official}{rest}"), form)
    }
}

impl Form {
    /// The official tensors in a stored one, unless its shape does not allow it.
    fn apply(self, name: String, mut entry: Entry) -> Option<Vec<(String, Entry)>> {
        match self {
            Same => Some(vec![(name, entry)]),
            Transposed => entry.transpose().then(|| vec![(name, entry)]),
            Joined(letters) => {
                let parts = entry.parts(letters.len())?;
                Some(self.names(name).into_iter().zip(parts).collect())
            }
        }
    }

    /// The official names of the tensors in a stored one.
    fn names(self, name: String) -> Vec<String> {
        match self {
            Same | Transposed => vec![name],
            Joined(letters) => letters.chars().map(|letter| format!("{name}{letter}")).collect(),
        }
    }

    fn expected(self) -> String {
        match self {
            Same => "any".into(),
            Transposed => "a matrix".into(),
            Joined(letters) => format!("[{}, C]", letters.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{DecayForm, Dtype, map::File, tensor::View};

    /// Tensors of these names and shapes, all over the same values, which count up.
    fn entries(list: &[(&str, &[usize])], bytes: &[u8]) -> Entries {
        let file = File { path: Path::new("memory"), bytes };
        let entry = |(name, shape): &(&str, &[usize])| {
            let len = 4 * shape.iter().product::<usize>();
            let view = View::contiguous(Dtype::F32, 0..len, shape.to_vec());
            ((*name).to_owned(), view.check(file, name).unwrap())
        };
        list.iter().map(entry).collect()
    }

    fn counting() -> Vec<u8> {
        (0..48).flat_map(|i| (i as f32).to_le_bytes()).collect()
    }

    fn renamed(list: &[(&str, &[usize])]) -> Result<Entries, CheckpointError> {
        let mut index = Index::new(DecayForm::Raw);
        index.entries = entries(list, &counting());
        official(Path::new("memory"), &mut index).map(|()| index.entries)
    }

    #[track_caller]
    fn check(stored: &[&str], expected: &[&str]) {
        let list: Vec<(&str, &[usize])> = stored.iter().map(|name| (*name, &[2][..])).collect();
        let names: Vec<String> = renamed(&list).unwrap().into_keys().collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn names_of_hugging_face() {
        check(
            &[
                "head.weight",
                "rwkv.blocks.0.attention.ln_x.weight",
                "rwkv.blocks.0.attention.time_maa_w1",
                "rwkv.blocks.0.attention.time_mix_key",
                "rwkv.blocks.0.feed_forward.time_mix_receptance",
                "rwkv.blocks.0.feed_forward.value.weight",
                "rwkv.blocks.0.ln1.bias",
                "rwkv.blocks.0.pre_ln.weight",
                "rwkv.blocks.11.attention.time_mix_gate",
                "rwkv.embeddings.weight",
                "rwkv.ln_out.bias",
            ],
            &[
                "blocks.0.att.ln_x.weight",
                "blocks.0.att.time_maa_w1",
                "blocks.0.att.time_mix_k",
                "blocks.0.ffn.time_mix_r",
                "blocks.0.ffn.value.weight",
                "blocks.0.ln0.weight",
                "blocks.0.ln1.bias",
                "blocks.11.att.time_mix_g",
                "emb.weight",
                "head.weight",
                "ln_out.bias",
            ],
        );
    }

    #[test]
    fn names_and_forms_of_flash_linear_attention() {
        let list: [(&str, &[usize]); 6] = [
            ("lm_head.weight", &[2, 2]),
            ("model.embeddings.weight", &[2, 2]),
            ("model.layers.3.attn.g_norm.weight", &[2]),
            ("model.layers.3.attn.r_k", &[1, 2]),
            ("model.layers.3.attn.w_lora.lora.0.weight", &[2, 3]),
            ("model.layers.3.attn.x_x", &[6, 1, 4]),
        ];
        let bytes = counting();
        let found = renamed(&list).unwrap();
        let read = |name: &str| found[name].read(&bytes);
        assert_eq!(read("blocks.3.att.w1").shape, [3, 2]);
        assert_eq!(read("blocks.3.att.w1").data, [0., 3., 1., 4., 2., 5.]);
        assert_eq!(read("blocks.3.att.x_r").data, [0., 1., 2., 3.]);
        assert_eq!(read("blocks.3.att.x_g").shape, [4]);
        assert_eq!(read("blocks.3.att.x_g").data, [20., 21., 22., 23.]);
        assert_eq!(found.len(), 11);
        assert!(found.contains_key("blocks.3.att.ln_x.weight") && found.contains_key("emb.weight"));
    }

    #[test]
    fn wrappers_of_all_names_are_taken_off() {
        check(
            &["_forward_module.model.blocks.0.ln1.bias", "_forward_module.model.emb.weight"],
            &["blocks.0.ln1.bias", "emb.weight"],
        );
        check(&["module.blocks.0.ln1.bias", "x"], &["module.blocks.0.ln1.bias", "x"]);
        check(&["module.", "module.module."], &["", "module."]);
        let endless = "module.".repeat(1 << 20);
        check(&[&endless], &[&endless["module.".len() * 5..]]);
    }

    #[test]
    fn what_is_skipped_has_official_names_too() {
        let skipped = |stored: &[&str], skipped: &[&str]| {
            let mut index = Index::new(DecayForm::Raw);
            let list: Vec<(&str, &[usize])> = stored.iter().map(|name| (*name, &[2][..])).collect();
            index.entries = entries(&list, &counting());
            index.skipped = skipped.iter().map(|name| ((*name).into(), "I8".into())).collect();
            official(Path::new("memory"), &mut index).unwrap();
            index.skipped.into_keys().collect::<Vec<_>>()
        };
        let key = "rwkv.blocks.0.attention.key.weight";
        let found = skipped(&["rwkv.ln_out.bias"], &[key, "rwkv.blocks.0.attention.key.SCB"]);
        assert_eq!(found, ["blocks.0.att.key.SCB", "blocks.0.att.key.weight"]);
        let found = skipped(&["module.blocks.0.ln1.bias"], &["module.head.weight", "step"]);
        assert_eq!(found, ["head.weight", "step"]);
        let found = skipped(&["model.norm.weight"], &["model.layers.1.attn.x_x"]);
        assert_eq!(found, ["a", "g", "k", "r", "v", "w"].map(|x| format!("blocks.1.att.x_{x}")));
    }

    #[test]
    fn unfit_shapes_and_doubled_names_are_refused() {
        let refusal = |list: &[_]| renamed(list).unwrap_err().to_string();
        let lora = "model.layers.0.attn.w_lora.lora.0.weight";
        let message = refusal(&[(lora, &[2])]);
        assert!(message.contains(lora) && message.contains("expected a matrix"), "{message}");
        for shape in [&[5, 4][..], &[6], &[]] {
            let message = refusal(&[("model.layers.0.attn.x_x", shape)]);
            assert!(message.contains("expected [6, C]"), "{message}");
        }
        let message =
            refusal(&[("model.layers.0.attn.x_x", &[6, 4]), ("model.layers.0.attn.x_r", &[4])]);
        assert!(message.contains("two tensors `blocks.0.att.x_r`"), "{message}");
    }
}
