//! What converting a file takes of memory: the largest tensor a few times, not the model.

use std::fs;

use rwkv_host::{
    checkpoint::Checkpoint,
    convert::{Options, Weights, convert_to},
};
use rwkv_tests::random;

use crate::{ALLOCATOR, ALONE};

#[test]
fn memory_holds_the_largest_tensor_a_few_times() {
    let _alone = ALONE.lock();
    let file = random::wide("4");
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("wide.rwkv");
    let length = fs::metadata(file.path()).unwrap().len() as usize;
    let checkpoint = Checkpoint::open(file.path()).unwrap();
    let sizes =
        checkpoint.entries().values().map(|entry| 4 * entry.shape.iter().product::<usize>());
    let largest = sizes.max().unwrap();
    // `max_allocated` is of the whole process, and the model was made in it: limits tell.
    for (weights, most) in [(Weights::F32, 3 * largest), (Weights::Int8, 3 * largest)] {
        let limit = ALLOCATOR.allocated() + most;
        ALLOCATOR.set_limit(limit).unwrap();
        convert_to(&output, &checkpoint, &Options::new(weights), |_, _| ()).unwrap();
        ALLOCATOR.set_limit(usize::MAX).unwrap();
        println!(
            "{weights:?}: a checkpoint of {length} bytes, its largest tensor {largest}, in {most} bytes of memory"
        );
        assert!(most < length / 2);
    }
}
