"""What holds for every stream: how it arrives changes nothing, and what comes out stays so."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.commands.pieces import INPUT_FORMATS, InputFormat
from sidecar.redaction.engine import Engine
from sidecar.redaction.rules import load_rules
from sidecar.settings import default_rules_dir
from tests.commands.streams import PLANTED, Outcome, cuts, streams

RULES = """
version: 1
rules:
  - {id: user, keys: [user_id]}
  - {id: key, find: private-key}
  - {id: mail, find: email}
  - {id: ip, find: ipv4}
  - {id: password, find: password-pair}
  - {id: note, pattern: 'pag[^,]', mode: audit}
"""
LEAVES_OUT = """
  - {id: spin, pattern: born, action: {replace: {with: born-born}}}
  - {id: gone, pattern: models, action: {drop_record: {}}}
"""
many = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
forms = st.sampled_from(INPUT_FORMATS)


def engine_of(folder: Path, text: str) -> Engine:
    (folder / "rules.yaml").write_text(text)
    return Engine(load_rules(folder))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return engine_of(tmp_path_factory.mktemp("rules"), RULES)


@pytest.fixture(scope="module")
def engine_that_leaves_out(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return engine_of(tmp_path_factory.mktemp("rules"), RULES + LEAVES_OUT)


@pytest.fixture(scope="module")
def shipped() -> Engine:
    return Engine(load_rules(default_rules_dir()))


@many
@given(data=streams, sizes=cuts, form=forms)
def test_the_blocks_change_nothing(
    engine_that_leaves_out: Engine, data: bytes, sizes: list[int], form: InputFormat
) -> None:
    whole = Outcome(engine_that_leaves_out, data, (), form)
    assert Outcome(engine_that_leaves_out, data, sizes, form).told() == whole.told()


@many
@given(data=streams, sizes=cuts, form=forms)
def test_the_blocks_change_nothing_at_the_bounds(
    engine: Engine, data: bytes, sizes: list[int], form: InputFormat
) -> None:
    whole = Outcome(engine, data, (), form, max_piece=60, max_key=80)
    cut = Outcome(engine, data, sizes, form, max_piece=60, max_key=80)
    assert cut.told() == whole.told()
    assert cut.most_held <= 60 + 80


@many
@given(data=streams, form=forms)
def test_what_came_out_comes_out_again_as_it_is(
    engine: Engine, data: bytes, form: InputFormat
) -> None:
    first = Outcome(engine, data, (), form)
    if first.failed or first.error:
        return  # what is left out no longer stands between what stood around it
    again = Outcome(engine, first.out, (), form)
    assert again.out == first.out
    assert {found.rule for found in again.findings} <= {"note"}


@settings(many, max_examples=100)
@given(data=streams)
def test_what_came_out_comes_out_again_by_the_rules_that_ship(shipped: Engine, data: bytes) -> None:
    first = Outcome(shipped, data)
    if first.failed or first.error:
        return
    again = Outcome(shipped, first.out)
    assert (again.out, again.findings) == (first.out, [])


@many
@given(data=streams, form=forms)
def test_nothing_planted_comes_out(shipped: Engine, data: bytes, form: InputFormat) -> None:
    out = Outcome(shipped, data, (), form).out
    assert not [planted for planted in PLANTED if planted.encode() in out]


@many
@given(data=streams, form=forms)
def test_asking_for_findings_changes_nothing(
    engine_that_leaves_out: Engine, data: bytes, form: InputFormat
) -> None:
    with_findings = Outcome(engine_that_leaves_out, data, (), form)
    without = Outcome(engine_that_leaves_out, data, (), form, note_findings=False)
    assert without.out == with_findings.out


@settings(many, max_examples=200)
@given(data=st.binary(max_size=200), sizes=cuts, form=forms)
def test_bytes_of_any_kind_are_taken_or_refused(
    shipped: Engine, data: bytes, sizes: list[int], form: InputFormat
) -> None:
    taken = Outcome(shipped, data, sizes, form)
    assert taken.error == "" or "this is" in taken.error
