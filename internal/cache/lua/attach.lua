#!lua flags=allow-oom
-- ATTACH: records the Redis process, the database cluster and the timeline that a server process works
-- with. If the process of Redis or the cluster changed, or the timeline is newer, it invalidates every
-- entry and marks everything as dirty for M. An older timeline is STALE: the caller's primary was replaced.
-- KEYS: gen, dirty. ARGV: run_id, system identifier, timeline (0: not known yet), M (ms).
-- Replies: OK, RAISED, STALE.
local run, system, timeline = unpack(redis.call('HMGET', KEYS[1], 'run', 'sys', 'tli'))
local raise = false
if run ~= ARGV[1] then raise = true end -- guard:attach-run
local reply = 'OK'
if ARGV[3] ~= '0' or not timeline then
    if system ~= ARGV[2] or tonumber(ARGV[3]) > tonumber(timeline or -1) then
        raise = true -- guard:attach-cluster
        redis.call('HSET', KEYS[1], 'sys', ARGV[2], 'tli', ARGV[3])
    elseif tonumber(ARGV[3]) < tonumber(timeline) then
        reply = 'STALE'
    end
end
if raise then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    -- seq is at least the time in microseconds. If only this hash were lost, counting from 1 again would
    -- make older entries valid.
    local seq = math.max(redis.call('HINCRBY', KEYS[1], 'seq', 1), time[1] * 1000000 + time[2])
    redis.call('HSET', KEYS[1], 'seq', seq)
    redis.call('HSETNX', KEYS[1], '*', 0)
    redis.call('HSET', KEYS[1], 'run', ARGV[1])
    redis.call('HSET', KEYS[1], '*', seq) -- guard:attach-star
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[4]), '*') -- guard:attach-dirty
    if reply == 'OK' then reply = 'RAISED' end
end
return reply
