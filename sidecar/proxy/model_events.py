"""What the events of an answer of a model API tell of it.

Of OpenAI's chat completions, completions, embeddings and responses, of what speaks like them, of
Ollama, and of Anthropic's messages. Pure; what was said is never looked at, only whether it is
empty.
"""

import math

import msgspec

# More is no count of tokens.
_MOST_TOKENS = 2**31
_NOTHING = frozenset({b"", b"null", b'""', b"[]", b"{}"})


class _Details(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _Details | None = None


class _Message(msgspec.Struct):
    """A message or what is new of one; of each field only whether it is empty matters."""

    content: msgspec.Raw = msgspec.Raw()
    reasoning_content: msgspec.Raw = msgspec.Raw()
    reasoning: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()
    tool_calls: msgspec.Raw = msgspec.Raw()
    function_call: msgspec.Raw = msgspec.Raw()
    refusal: msgspec.Raw = msgspec.Raw()
    audio: msgspec.Raw = msgspec.Raw()
    # Of Anthropic's.
    model: str | None = None
    usage: _Usage | None = None


class _Choice(msgspec.Struct):
    delta: _Message | None = None
    text: msgspec.Raw = msgspec.Raw()


class _Response(msgspec.Struct):
    model: str | None = None
    usage: _Usage | None = None


class _Timings(msgspec.Struct):
    predicted_per_second: float | None = None


class _Event(msgspec.Struct):
    """An event, or some members of a whole answer, of any of the APIs."""

    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()
    object: str | None = None
    type: str | None = None
    # llama.cpp.
    timings: _Timings | None = None
    # OpenAI's responses and Anthropic's messages; Ollama's `generate` has text in `response`.
    delta: msgspec.Raw = msgspec.Raw()
    response: _Response | str | None = None
    message: _Message | str | None = None
    # Ollama; nanoseconds.
    thinking: msgspec.Raw = msgspec.Raw()
    done: bool | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


# Of a whole answer those that tell something: its content does not.
MEMBERS = frozenset(
    {
        b"model",
        b"usage",
        b"error",
        b"timings",
        b"prompt_eval_count",
        b"eval_count",
        b"eval_duration",
    }
)
_LAST = frozenset({"response.completed", "response.incomplete", "message_stop"})
_decode = msgspec.json.Decoder(_Event).decode


def _says(*fields: msgspec.Raw) -> bool:
    return any(bytes(field) not in _NOTHING for field in fields)


def _count(*values: int | None) -> int | None:
    """Return the first that can be a count of tokens."""
    return next((v for v in values if v is not None and 0 <= v <= _MOST_TOKENS), None)


class Told:
    """What an answer has told so far.

    Attributes:
        model: as the server calls it.
        prompt_tokens, completion_tokens: as the server counts; the last count holds.
        reasoning_tokens: those of ``completion_tokens`` that are reasoning.
        tokens_per_second: as the server measured it.
        pieces: how many told something new: content, reasoning or a tool's call.
        reasoned: whether reasoning was among them.
        ended: whether it said that nothing follows.
        failed: whether it told of an error.
        unread: events that are too large, or no JSON of a known shape.
    """

    def __init__(self) -> None:
        self.model: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.reasoning_tokens = 0
        self.tokens_per_second: float | None = None
        self.pieces = 0
        self.reasoned = False
        self.ended = False
        self.failed = False
        self.unread = 0

    def add(self, document: bytes) -> None:
        """Read one event."""
        try:
            event = _decode(document)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.unread += 1
            return
        if event.model:
            self.model = event.model
        reasons, says = _news(event)
        self.pieces += reasons or says
        self.reasoned = self.reasoned or reasons
        self._add_usage(event.usage)
        for part in (event.response, event.message):
            if isinstance(part, _Response | _Message):
                self.model = part.model or self.model
                self._add_usage(part.usage)
        if event.timings:
            self._add_speed(event.timings.predicted_per_second)
        if event.eval_count is not None or event.prompt_eval_count is not None:
            self._add_ollama(event)
        self.ended = self.ended or bool(event.done) or event.type in _LAST
        self.failed = (
            self.failed
            or _says(event.error)
            or "error" in (event.type, event.object)
            or event.type == "response.failed"
        )

    def _add_usage(self, usage: _Usage | None) -> None:
        if usage is None:
            return
        self.prompt_tokens = _count(usage.prompt_tokens, usage.input_tokens, self.prompt_tokens)
        self.completion_tokens = _count(
            usage.completion_tokens, usage.output_tokens, self.completion_tokens
        )
        details = usage.completion_tokens_details or usage.output_tokens_details
        if details:
            self.reasoning_tokens = _count(details.reasoning_tokens) or 0

    def _add_ollama(self, event: _Event) -> None:
        self.prompt_tokens = _count(event.prompt_eval_count, self.prompt_tokens)
        self.completion_tokens = _count(event.eval_count, self.completion_tokens)
        if self.completion_tokens and event.eval_duration:
            self._add_speed(self.completion_tokens / event.eval_duration * 1e9)

    def _add_speed(self, speed: float | None) -> None:
        if speed is not None and speed > 0 and math.isfinite(speed):
            self.tokens_per_second = speed


def _news(event: _Event) -> tuple[bool, bool]:
    """Return whether there is new reasoning in an event, and whether other content."""
    reasons, says = _says(event.thinking), False
    messages = [choice.delta for choice in event.choices or () if choice.delta]
    if isinstance(event.message, _Message):
        messages.append(event.message)
    for message in messages:
        reasons = reasons or _says(message.reasoning_content, message.reasoning, message.thinking)
        says = says or _says(
            message.content,
            message.tool_calls,
            message.function_call,
            message.refusal,
            message.audio,
        )
    says = says or any(_says(choice.text) for choice in event.choices or ())
    says = says or (isinstance(event.response, str) and event.response != "")
    if event.type and event.type.endswith((".delta", "content_block_delta")):
        says = says or _says(event.delta)
        reasons = reasons or "reasoning" in event.type or b'"thinking_delta"' in bytes(event.delta)
    return reasons, says
