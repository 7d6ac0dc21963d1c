import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from sidecar.pipeline.batch import Batch, merge, pack


def group(name: str) -> ResourceSpans:
    return ResourceSpans(scope_spans=[ScopeSpans(spans=[Span(name=name)])])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.text(max_size=5), max_size=3), min_size=1, max_size=5))
def test_merged_protobuf_holds_the_records_of_all(batches: list[list[str]]) -> None:
    requests = [ExportTraceServiceRequest(resource_spans=map(group, b)) for b in batches]
    merged = merge([Batch("traces", r.SerializeToString(), 1) for r in requests])
    flat = [group(name) for batch in batches for name in batch]
    expected = ExportTraceServiceRequest(resource_spans=flat)
    assert ExportTraceServiceRequest.FromString(merged.body) == expected
    assert merged.records == len(batches)


def test_merged_events_are_one_a_line() -> None:
    parts = [Batch("events", b'{"n":1}\n{"n":2}', 2), Batch("events", b'{"n":3}', 1)]
    assert merge(parts) == Batch("events", b'{"n":1}\n{"n":2}\n{"n":3}', 3)


@pytest.mark.parametrize("compress", [True, False])
@given(body=st.binary(max_size=200), magic=st.booleans())
def test_what_was_packed_comes_out_the_same(compress: bool, body: bytes, magic: bool) -> None:
    batch = Batch("traces", b"\x28\xb5\x2f\xfd" * magic + body, 3)
    packed = pack(batch, compress=compress)
    assert (packed.signal, packed.records, packed.size) == ("traces", 3, len(batch.body))
    assert packed.unpack(damageable=compress) == batch


def test_a_damaged_body_is_no_plain_one() -> None:
    packed = pack(Batch("traces", b"repeated " * 100, 1))
    for place in range(len(packed.body)):
        body = bytearray(packed.body)
        body[place] ^= 0x55
        with pytest.raises(zstandard.ZstdError):
            msgspec.structs.replace(packed, body=bytes(body)).unpack()
