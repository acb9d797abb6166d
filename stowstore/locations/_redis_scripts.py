"""What runs inside Redis: each script is one atomic step over a value and the hash beside it.

KEYS are the value's and its companion's; the companion holds ``etag``, ``size``, ``modified`` (milliseconds), the
content headers, and user metadata under ``m:<name>``.  It counts only while it describes the value that is there:
others may have set the string meanwhile.
"""

from __future__ import annotations

__all__ = ["COPY", "HEAD", "OPEN", "PIECE", "PUT", "TRUSTED_FROM"]

#: Values larger than this many bytes are not hashed each time: their companion is believed when the size agrees.
TRUSTED_FROM = 64 << 10

_DESCRIBE = f"""
local function describe(key, side)
  local size = redis.call('STRLEN', key)
  if size == 0 and redis.call('EXISTS', key) == 0 then return nil end
  local known = redis.call('HMGET', side, 'etag', 'size')
  local etag = known[1]
  if size <= {TRUSTED_FROM} or not etag or tonumber(known[2]) ~= size then
    etag = redis.sha1hex(redis.call('GET', key))
  end
  return size, etag, etag == known[1]
end

local function fields(side, valid)
  return valid and redis.call('HGETALL', side) or {{}}
end

local function refuse(condition, wanted)
  if condition == 'absent' and redis.call('EXISTS', KEYS[1]) == 1 then return 'exists' end
  if condition == 'match' then
    local size, etag = describe(KEYS[1], KEYS[2])
    if not size or etag ~= wanted then return 'differs' end
  end
  return nil
end

local function keep(side, size, etag, given, first)
  local now = redis.call('TIME')
  redis.call('DEL', side)
  redis.call('HSET', side, 'etag', etag, 'size', size,
             'modified', string.format('%d%03d', now[1], math.floor(now[2] / 1000)))
  for at = first, #given, 2 do
    redis.call('HSET', side, given[at], given[at + 1])
  end
end
"""

#: -> false, or size, etag, fields.
HEAD = (
    _DESCRIBE
    + """
local size, etag, valid = describe(KEYS[1], KEYS[2])
if not size then return false end
return {size, etag, fields(KEYS[2], valid)}
"""
)

#: ARGV: start, length (-1: all), most bytes to send at once -> false, or size, etag, fields, first, count, bytes.
OPEN = (
    _DESCRIBE
    + """
local size, etag, valid = describe(KEYS[1], KEYS[2])
if not size then return false end
local first, count = tonumber(ARGV[1]), tonumber(ARGV[2])
if first < 0 then first = math.max(0, size + first) else first = math.min(first, size) end
if count < 0 then count = size - first else count = math.min(count, size - first) end
local now = math.min(count, tonumber(ARGV[3]))
local bytes = ''
if now > 0 then bytes = redis.call('GETRANGE', KEYS[1], first, first + now - 1) end
return {size, etag, fields(KEYS[2], valid), first, count, bytes}
"""
)

#: ARGV: size, etag, first, last -> false if it is another object now, or its bytes.
PIECE = (
    _DESCRIBE
    + """
local size, etag = describe(KEYS[1], KEYS[2])
if size ~= tonumber(ARGV[1]) or etag ~= ARGV[2] then return false end
return redis.call('GETRANGE', KEYS[1], ARGV[3], ARGV[4])
"""
)

#: ARGV: condition, its etag, size, etag, value, fields...; with a third key the value is renamed from there.
PUT = (
    _DESCRIBE
    + """
local refused = refuse(ARGV[1], ARGV[2])
if refused then return refused end
if KEYS[3] then
  if redis.call('STRLEN', KEYS[3]) ~= tonumber(ARGV[3]) then return 'lost' end
  redis.call('RENAME', KEYS[3], KEYS[1])
  redis.call('PERSIST', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[5])
end
keep(KEYS[2], ARGV[3], ARGV[4], ARGV, 6)
return 'stored'
"""
)

#: KEYS: destination and companion, source and companion.  ARGV: condition, its etag, 'carry' or 'given', fields...
COPY = (
    _DESCRIBE
    + """
local size, etag, valid = describe(KEYS[3], KEYS[4])
if not size then return {'missing'} end
local refused = refuse(ARGV[1], ARGV[2])
if refused then return {refused} end
local given, first = ARGV, 4
if ARGV[3] == 'carry' then
  given, first = {}, 1
  local known = fields(KEYS[4], valid)
  for at = 1, #known, 2 do
    if known[at] ~= 'etag' and known[at] ~= 'size' and known[at] ~= 'modified' then
      given[#given + 1] = known[at]
      given[#given + 1] = known[at + 1]
    end
  end
end
if KEYS[1] ~= KEYS[3] then redis.call('COPY', KEYS[3], KEYS[1], 'REPLACE') end
keep(KEYS[2], size, etag, given, first)
return {'stored', etag}
"""
)
