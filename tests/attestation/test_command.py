"""attestation.command: what starts a script of the tree, and what would start or load something else."""

import pytest

from attestation.command import OTHER, SCRIPT, entry, steering

SCRIPTS = (
    "python train.py",
    "python3 -u -I src/train.py --epochs 3",
    "python train.py -c os.system",
    "torchrun train.py",
    "torchrun --nproc-per-node 8 train.py --lr 1",
    "torchrun --nproc_per_node=8 --standalone --rdzv-backend=c10d jobs/train.py",
)
OTHERS = (
    "python",
    "python -c print(1)",
    "python -m http.server",
    "python -",
    "python -u",
    "python -W error::evil.Category train.py",
    "python -X importtime train.py",
    "python /tmp/evil.py",
    "python ../evil.py",
    "python a/../../evil.py",
    "python -Ic print(1)",
    "/usr/bin/python train.py",
    "./python train.py",
    "bash train.sh",
    "env python train.py",
    "torchrun",
    "torchrun --no-python /bin/sh",
    "torchrun --no-py train.py",
    "torchrun -m evil",
    "torchrun --module evil",
    "torchrun --standalone=1 train.py",
    "torchrun --nproc-per-node",
    "torchrun --nproc-per-node 8 /tmp/evil.py",
    "train.py",
)


@pytest.mark.parametrize("line", SCRIPTS)
def test_a_script_of_the_tree(line: str) -> None:
    assert entry(line.split(" ")) == SCRIPT


@pytest.mark.parametrize("line", OTHERS)
def test_anything_else(line: str) -> None:
    assert entry(line.split(" ")) == OTHER


def test_an_empty_path_is_no_script() -> None:
    assert entry(["python", ""]) == OTHER


@pytest.mark.parametrize(
    "name",
    [
        *(
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PYTHONHOME",
            "PYTHONWARNINGS",
            "PATH",
            "HOME",
        ),
        *("GCONV_PATH", "BASH_ENV", "ENV", "OPENSSL_CONF", "GLIBC_TUNABLES", "CUDA_INJECTION64_PATH"),
    ],
)
def test_a_variable_that_steers(name: str) -> None:
    assert steering(["SEED", name]) == (name,)


def test_variables_that_do_not_steer() -> None:
    assert steering(["PYTHONHASHSEED", "PYTHONUNBUFFERED", "SEED", "OMP_NUM_THREADS", "MY_PATH"]) == ()
    assert steering(["PATH", "LD_PRELOAD"]) == ("LD_PRELOAD", "PATH")
