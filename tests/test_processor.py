"""Tests of which instruction sets are used."""

import pytest
from conftest import fails_with_one_line, run

from utils import processor
from utils.processor import instruction_sets


@pytest.fixture
def machine(monkeypatch):
    """Play a machine by its kind and its processor's features."""

    def play(kind, features):
        monkeypatch.setattr(processor, "_machine", lambda: kind)
        monkeypatch.setattr(processor, "_features", lambda: frozenset(features.split()))
        monkeypatch.delenv("SPLADE_ISA", raising=False)
        processor._usable.cache_clear()

    yield play
    processor._usable.cache_clear()


AVX512 = "avx2 fma avx512f avx512bw avx512dq avx512vl"


@pytest.mark.parametrize(
    "kind, features, expected",
    [
        (
            "x86_64",
            f"{AVX512} avx512_vnni avx512_bf16 avx_vnni",
            ("avx512_bf16", "avx512_vnni", "avx_vnni", "avx512", "avx2"),
        ),
        ("x86_64", f"{AVX512} avx512_vnni avx_vnni", ("avx512_vnni", "avx_vnni", "avx512", "avx2")),
        ("x86_64", f"{AVX512} avx512_vnni", ("avx512_vnni", "avx512", "avx2")),
        ("x86_64", AVX512, ("avx512", "avx2")),
        ("x86_64", "avx2 fma avx_vnni", ("avx_vnni", "avx2")),
        ("x86_64", "avx2 fma", ("avx2",)),
        ("x86_64", "sse4_2", ()),
        ("aarch64", "fp asimd asimddp i8mm", ("neon_i8mm", "neon")),
        ("aarch64", "fp asimd asimddp", ("neon",)),
        ("aarch64", "fp asimd", ()),
        ("riscv64", "", ()),
    ],
)
def test_a_processor_has_the_sets_whose_features_it_has_the_best_first(kind, features, expected, machine):
    machine(kind, features)
    assert instruction_sets() == expected


def test_a_lower_one_can_be_named_and_torchs_operations_alone(machine, monkeypatch):
    machine("x86_64", f"{AVX512} avx512_vnni")
    monkeypatch.setenv("SPLADE_ISA", "avx512")
    assert instruction_sets() == ("avx512", "avx2")
    monkeypatch.setenv("SPLADE_ISA", "torch")
    assert instruction_sets() == ()


@pytest.mark.parametrize("name", ["neon", "avx2 ", "AVX2", "sse9"])
def test_one_that_the_processor_lacks_is_reported_in_one_line(name, machine, monkeypatch):
    machine("x86_64", "avx2 fma")
    monkeypatch.setenv("SPLADE_ISA", name)
    done = run("embedder.py", "--model-dir", "splade-tiny", "--text", "a")
    fails_with_one_line(done, "SPLADE_ISA", name, "avx2, torch")


@pytest.mark.parametrize(
    "answer, expected",
    [("echo 1", ("neon_i8mm", "neon")), ("echo 0", ("neon",)), ("exit 1", ("neon",)), (None, ("neon",))],
)
def test_a_processor_of_apple_is_asked_for_products_of_matrices(answer, expected, monkeypatch, tmp_path):
    if answer:
        program = tmp_path / "sysctl"
        program.write_text(f'#!/bin/sh\n[ "$*" = "-n hw.optional.arm.FEAT_I8MM" ] && {answer}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if answer else str(tmp_path))
    monkeypatch.setattr(processor.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(processor.platform, "machine", lambda: "arm64")
    monkeypatch.delenv("SPLADE_ISA", raising=False)
    processor._usable.cache_clear()
    assert instruction_sets() == expected
    processor._usable.cache_clear()
