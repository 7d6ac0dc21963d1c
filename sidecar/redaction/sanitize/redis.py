"""Redis commands without keys' variable parts and without values.

Instrumentations print a command as its arguments with blanks between, mostly unquoted, so that a
value with a blank in it looks like several arguments. A key is therefore kept only where it must
stand whatever the values are, and only its fixed prefix: the plain words it begins with.

Commands and where their keys stand: the command reference of Redis ("Command key specifications").
"""

import re
from collections.abc import Callable

# The first argument is a key (or a channel, an index, a pattern of keys).
_ONE_KEY = """
    append bitcount bitfield bitfield_ro bitpos blmove brpoplpush copy decr decrby dump expire
    expireat expiretime geoadd geodist geohash geopos georadius geosearch geosearchstore get getbit
    getdel getex getrange getset hdel hexists hexpire hget hgetall hgetdel hgetex hincrby
    hincrbyfloat hkeys hlen hmget hmset hpersist hpexpire hpttl hrandfield hscan hset hsetex hsetnx
    hstrlen httl hvals incr incrby incrbyfloat keys lindex linsert llen lmove lpop lpos lpush lpushx
    lrange lrem lset ltrim move mset msetnx persist pexpire pexpireat pexpiretime pfadd psetex pttl
    publish restore rpop rpush rpushx sadd scard set setbit setex setnx setrange sismember smembers
    smismember smove sort sort_ro spop spublish srandmember srem sscan strlen substr ttl type xack
    xadd xautoclaim xclaim xdel xlen xpending xrange xrevrange xsetid xtrim zadd zcard zcount
    zdiffstore zincrby zinterstore zlexcount zmscore zpopmax zpopmin zrandmember zrange
    zrangebylex zrangebyscore zrangestore zrank zrem zremrangebylex zremrangebyrank
    zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore zrevrank zscan zscore zunionstore
"""
_ALL_KEYS = """
    blpop brpop bzpopmax bzpopmin del exists lcs mget pfcount pfmerge psubscribe punsubscribe rename
    renamenx rpoplpush sdiff sdiffstore sinter sinterstore ssubscribe subscribe sunion sunionstore
    sunsubscribe touch unlink unsubscribe watch
"""
_COUNTED_KEYS = """
    blmpop bzmpop eval eval_ro evalsha evalsha_ro fcall fcall_ro lmpop sintercard zdiff zinter
    zintercard zmpop zunion
"""
_NO_KEYS = """
    asking auth bgrewriteaof bgsave bitop dbsize discard echo exec failover flushall flushdb hello
    info lastsave lolwut migrate monitor multi ping psync quit randomkey readonly readwrite
    replicaof reset role save select shutdown slaveof swapdb sync time unwatch wait waitaof
"""
_SUBCOMMANDS = {
    "acl": "cat deluser dryrun genpass getuser help list load log save setuser users whoami",
    "client": "caching capa getname getredir help id import-source info kill list no-evict "
    "no-touch pause reply setinfo setname tracking trackinginfo unblock unpause",
    "cluster": "addslots addslotsrange countkeysinslot delslots failover forget getkeysinslot help "
    "info keyslot links meet myid nodes replicas replicate reset setslot shards slots",
    "command": "count docs getkeys getkeysandflags help info list",
    "config": "get help resetstat rewrite set",
    "debug": "object sleep",
    "function": "delete dump flush help kill list load restore stats",
    "latency": "doctor graph help histogram history latest reset",
    "memory": "doctor help malloc-stats purge stats usage",
    "module": "help list load loadex unload",
    "object": "encoding freq help idletime refcount",
    "pubsub": "channels help numpat numsub shardchannels shardnumsub",
    "script": "debug exists flush help kill load",
    "slowlog": "get help len reset",
    "xgroup": "create createconsumer delconsumer destroy help setid",
    "xinfo": "consumers groups help stream",
}
# Subcommands that are followed by a key.
_KEYED = {("debug", "object"), ("memory", "usage")} | {
    (command, subcommand)
    for command in ("object", "xgroup", "xinfo")
    for subcommand in _SUBCOMMANDS[command].split()
}
# Of modules, such as JSON.GET: those whose first argument is a key.
_MODULE = re.compile(r"(?:bf|cf|cms|ft|json|tdigest|topk|ts)\.[a-z_]{2,24}", re.IGNORECASE)
_COMMAND = re.compile(r"[A-Z][A-Z_-]{1,23}")

# One word, or several as names are made of them: `usage_pool`, `openWebui`, `v1`. Letters without
# such a shape are random.
_PART = r"(?:[A-Z]?[a-z]+(?:[A-Z][a-z]{2,})*|[A-Z]+|v[0-9]{1,2})"
_PLAIN = re.compile(rf"_*+{_PART}(?:[_-]+{_PART})*_*+|\*")
_LONGEST = 40
# What follows one of these in a key names a person or their session, be it a plain word.
_OF_PERSONS = re.compile(
    r"(?:.*[_-])?(?:accounts?|clients?|contacts?|customers?|emails?|ids?|ips?|logins?|mail|members?|"
    r"names?|owners?|patients?|persons?|phones?|profiles?|ratelimit|sessions?|sid|tokens?|uid|"
    r"users?|userid|username)",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"b?([\"'])(.*?)(\1?)", re.DOTALL)
_COUNT = re.compile(r"[1-9]")


def sanitize_redis(text: str) -> str:
    """Return a Redis command, or one in each line, with its keys' fixed prefixes and no values.

    The command and its subcommand stay, of a key the plain words it begins with, up to the first
    part (parts end at ``:``) that is none, or that follows a word such as ``user``. The rest of
    the key becomes ``?``, and so do the other arguments together. Of a command that is not known
    all arguments go. Sanitizing twice changes nothing.
    """
    lines = text.split("\n")
    if len(lines) > 1 and all(map(_begins_command, lines)):
        result = "\n".join(map(_statement, lines))
    else:
        # A line break within a value, or within a script.
        result = _statement(text)
    return text if result == text else result


def _begins_command(line: str) -> bool:
    command = line.partition(" ")[0]
    return command.isupper() and (command.lower() in _KNOWN or bool(_MODULE.fullmatch(command)))


def _statement(text: str) -> str:
    words = text.split()
    if not words:
        return text
    command = words[0].lower()
    arguments = _KNOWN.get(command)
    if arguments is None:
        arguments = _one_key if _MODULE.fullmatch(command) else _no_keys
        if arguments is _no_keys and not _COMMAND.fullmatch(words[0]):
            return "?"
    if command in _SUBCOMMANDS and len(words) > 1:
        subcommand = words[1].lower()
        if subcommand in _SUBCOMMANDS[command].split():
            keyed = (command, subcommand) in _KEYED
            result = words[:2] + (_one_key if keyed else _no_keys)(words[2:])
            return text if result == words else " ".join(result)
    result = [words[0], *arguments(words[1:])]
    return text if result == words else " ".join(result)


def _no_keys(words: list[str]) -> list[str]:
    """Return what stands for arguments whose number is not known."""
    return words if words.count("?") == len(words) else ["?"]


def _one_key(words: list[str]) -> list[str]:
    return [*map(_prefix, words[:1]), *_no_keys(words[1:])]


def _all_keys(words: list[str]) -> list[str]:
    # A plain word may as well be the rest of a key with a blank in it.
    return [
        *map(_prefix, words[:1]),
        *(_prefix(word) if ":" in word else "?" for word in words[1:]),
    ]


def _counted_keys(words: list[str]) -> list[str]:
    """Keep the keys behind their number; the script before it may have blanks in it."""
    for place, word in enumerate(words):
        if _COUNT.fullmatch(word):
            keys = words[place + 1 : place + 1 + int(word)]
            if len(keys) == int(word) and all(":" in key and _prefix(key) != "?" for key in keys):
                behind = place + 1 + len(keys)
                return [
                    *_no_keys(words[:place]),
                    word,
                    *map(_prefix, keys),
                    *_no_keys(words[behind:]),
                ]
    return _no_keys(words)


def _streams(words: list[str]) -> list[str]:
    names = [word.lower() for word in words]
    if "streams" not in names:
        return _no_keys(words)
    place = names.index("streams")
    return [*_no_keys(words[:place]), words[place], *_all_keys(words[place + 1 :])]


def _scan(words: list[str]) -> list[str]:
    if len(words) < 3 or words[1].lower() != "match":
        return _no_keys(words)
    return ["?", words[1], *_one_key(words[2:])]


def _prefix(key: str) -> str:
    if quoted := _QUOTED.fullmatch(key):
        # Where the quotes do not end, a blank follows, and the last part is not whole.
        key = quoted[2] if quoted[3] else f"{quoted[2]} "
    kept: list[str] = []
    for part in key.split(":"):
        of_person = kept and _OF_PERSONS.fullmatch(kept[-1])
        if of_person or len(part) > _LONGEST or not _PLAIN.fullmatch(part):
            return ":".join([*kept, "?"])
        kept.append(part)
    return key


_KNOWN: dict[str, Callable[[list[str]], list[str]]] = {
    **dict.fromkeys(_ONE_KEY.split(), _one_key),
    **dict.fromkeys(_ALL_KEYS.split(), _all_keys),
    **dict.fromkeys(_COUNTED_KEYS.split(), _counted_keys),
    **dict.fromkeys(_NO_KEYS.split(), _no_keys),
    **dict.fromkeys(_SUBCOMMANDS, _no_keys),
    "scan": _scan,
    "xread": _streams,
    "xreadgroup": _streams,
}
