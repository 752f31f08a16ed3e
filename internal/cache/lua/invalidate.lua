#!lua flags=allow-oom
-- INVALIDATE: removes the values and leases of the keys, increments the counters of the dependencies, and
-- marks all of them as dirty for M: loads within M use the primary.
-- KEYS: gen, dirty, entries ... ARGV: M (ms), dependencies ...
-- Replies: OK, UNATTACHED.
if not redis.call('HGET', KEYS[1], 'run') then return 'UNATTACHED' end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = now + tonumber(ARGV[1])
for i = 3, #KEYS do
    redis.call('ZADD', KEYS[2], expiry, KEYS[i]) -- guard:mark-key
    redis.call('UNLINK', KEYS[i]) -- guard:unlink
end
if #ARGV > 1 then
    local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
    for i = 2, #ARGV do
        redis.call('HSET', KEYS[1], ARGV[i], seq) -- guard:raise
        redis.call('ZADD', KEYS[2], expiry, ARGV[i], expiry, 'deps') -- guard:mark-dependency
    end
end

-- Remove expired markers: more than this call added, so that the set shrinks, and few enough that no call
-- takes long.
local expired = redis.call('ZRANGE', KEYS[2], '-inf', now, 'BYSCORE', 'LIMIT', 0, 2 * (#KEYS + #ARGV))
if #expired > 0 then redis.call('ZREM', KEYS[2], unpack(expired)) end
return 'OK'
