//! Which rank holds what: the sharding rules, all in one place.
//!
//! | weight | rank `r` of `n` holds |
//! |---|---|
//! | q, gate, up (and their biases) | rows `r/n .. (r+1)/n` (column parallel) |
//! | k, v (and their biases) | the same; with fewer KV heads than ranks, head `r * heads / n` (replicated) |
//! | experts | each expert as gate, up and down; the router whole |
//! | o, down | columns `r/n .. (r+1)/n` (row parallel); the products are summed over the ranks |
//! | biases of o, down | rank 0 only, so that the sum has them once |
//! | embedding, lm_head | rows `r * ceil(vocab / n) ..`, the last rank fewer (vocabulary parallel) |
//! | norms | all |
//!
//! Knows sizes, not tensors.

use std::ops::Range;

use crate::{ModelConfig, ModelError};

/// One rank's share of a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shard {
    /// Which rank.
    pub rank: usize,
    /// Of how many.
    pub world_size: usize,
    /// Query heads, as in the whole model.
    pub qo_heads: Range<usize>,
    /// KV heads, as in the whole model.
    pub kv_heads: Range<usize>,
    /// Columns of the MLP's inner layer; none if all layers have experts.
    pub intermediate: Range<usize>,
    /// Columns of every expert's inner layer; none if there are no experts.
    pub expert_intermediate: Range<usize>,
    /// Token ids.
    pub vocab: Range<usize>,
}

impl Shard {
    /// The share of `rank`.
    ///
    /// # Errors
    /// [`ModelError::TensorParallel`] if a size cannot be split over `world_size` ranks.
    pub fn new(config: &ModelConfig, rank: usize, world_size: usize) -> Result<Self, ModelError> {
        let even = |what: &str, size: usize| {
            if size.is_multiple_of(world_size) {
                let each = size / world_size;
                return Ok(rank * each..(rank + 1) * each);
            }
            let problem = format!("{size} {what} cannot be split evenly; use a divisor of {size}");
            Err(ModelError::TensorParallel { tp: world_size, problem })
        };
        let kv = config.num_kv_heads;
        let kv_heads = if kv >= world_size || !world_size.is_multiple_of(kv) {
            even("KV heads", kv)?
        } else {
            let head = rank * kv / world_size;
            head..head + 1
        };
        let each = config.vocab_size.div_ceil(world_size);
        let vocab_start = |rank: usize| (rank * each).min(config.vocab_size);
        if vocab_start(world_size - 1) == config.vocab_size {
            let problem = format!("{} token ids leave a rank without any", config.vocab_size);
            return Err(ModelError::TensorParallel { tp: world_size, problem });
        }
        let (dense, expert) = match &config.moe {
            None => (config.intermediate_size, 0),
            Some(moe) if moe.is_sparse.contains(&false) => {
                (config.intermediate_size, moe.intermediate_size)
            }
            Some(moe) => (0, moe.intermediate_size),
        };
        Ok(Self {
            rank,
            world_size,
            qo_heads: even("attention heads", config.num_qo_heads)?,
            kv_heads,
            intermediate: even("columns of the MLP", dense)?,
            expert_intermediate: even("columns of an expert", expert)?,
            vocab: vocab_start(rank)..vocab_start(rank + 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(num_qo_heads: usize, num_kv_heads: usize, vocab_size: usize) -> ModelConfig {
        let json = format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "rms_norm_eps": 1e-5,
                "intermediate_size": 96, "num_hidden_layers": 1, "rope_theta": 1e4,
                "num_attention_heads": {num_qo_heads}, "num_key_value_heads": {num_kv_heads},
                "head_dim": 8, "vocab_size": {vocab_size}, "max_position_embeddings": 64}}"#
        );
        ModelConfig::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn shards_cover_the_model_once() {
        for (num_qo_heads, num_kv_heads, vocab_size) in [(8, 8, 320), (8, 2, 331), (16, 4, 57)] {
            let config = config(num_qo_heads, num_kv_heads, vocab_size);
            for world_size in [1, 2, 4, 8] {
                let shards: Vec<Shard> = (0..world_size)
                    .map(|rank| Shard::new(&config, rank, world_size).unwrap())
                    .collect();
                let covers = |range: fn(&Shard) -> Range<usize>, size: usize| {
                    let all: Vec<usize> = shards.iter().flat_map(range).collect();
                    assert_eq!(all, (0..size).collect::<Vec<_>>());
                };
                covers(|shard| shard.qo_heads.clone(), num_qo_heads);
                covers(|shard| shard.intermediate.clone(), 96);
                covers(|shard| shard.vocab.clone(), vocab_size);
                for shard in &shards {
                    let group = config.group_size();
                    for head in shard.qo_heads.clone() {
                        let local = (head - shard.qo_heads.start)
                            / (shard.qo_heads.len() / shard.kv_heads.len());
                        assert_eq!(shard.kv_heads.start + local, head / group, "{shard:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn experts_are_split_like_an_mlp_and_layers_without_them_too() {
        let moe = |dense_layers: &str, size: usize| {
            let json = format!(
                r#"{{"architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 64,
                    "rms_norm_eps": 1e-5, "intermediate_size": 100, "num_hidden_layers": 2,
                    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8,
                    "vocab_size": 320, "max_position_embeddings": 64, "num_experts": 4,
                    "num_experts_per_tok": 2, "moe_intermediate_size": {size},
                    "mlp_only_layers": {dense_layers}}}"#
            );
            ModelConfig::parse(json.as_bytes()).unwrap()
        };
        let shard = Shard::new(&moe("[]", 48), 7, 8).unwrap();
        assert_eq!((shard.intermediate, shard.expert_intermediate), (0..0, 42..48));
        let shard = Shard::new(&moe("[1]", 48), 1, 2).unwrap();
        assert_eq!((shard.intermediate, shard.expert_intermediate), (50..100, 24..48));
        let error = Shard::new(&moe("[]", 20), 0, 8).unwrap_err().to_string();
        assert!(error.contains("20 columns of an expert cannot be split evenly"), "{error}");
        let error = Shard::new(&moe("[0]", 48), 0, 8).unwrap_err().to_string();
        assert!(error.contains("100 columns of the MLP cannot be split evenly"), "{error}");
    }

    #[test]
    fn what_does_not_divide_is_an_error() {
        let error = |heads, kv, world_size| {
            Shard::new(&config(heads, kv, 320), 0, world_size).unwrap_err().to_string()
        };
        assert!(error(8, 2, 3).contains("2 KV heads cannot be split evenly"));
        assert!(error(9, 3, 2).contains("KV heads"));
        assert!(error(5, 5, 5).contains("96 columns of the MLP"));
        assert!(error(8, 8, 16).contains("attention heads"));
        let tiny = Shard::new(&config(8, 8, 9), 0, 8).unwrap_err();
        assert!(tiny.to_string().contains("9 token ids leave a rank without any"), "{tiny}");
    }
}
