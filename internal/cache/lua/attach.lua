#!lua flags=allow-oom
-- ATTACH: what was cached under another Redis process, another database cluster or an older timeline
-- is dead, and for M everything is loaded from the primary.
-- KEYS: gen, dirty. ARGV: run_id, system identifier, timeline (0: not known yet), M (ms).
local run, system, timeline = unpack(redis.call('HMGET', KEYS[1], 'run', 'sys', 'tli'))
local raise = false
if run ~= ARGV[1] then raise = true end -- guard:attach-run
local answer = 'OK'
if ARGV[3] ~= '0' or not timeline then
    if system ~= ARGV[2] or tonumber(ARGV[3]) > tonumber(timeline or -1) then
        raise = true -- guard:attach-cluster
        redis.call('HSET', KEYS[1], 'sys', ARGV[2], 'tli', ARGV[3])
    elseif tonumber(ARGV[3]) < tonumber(timeline) then
        answer = 'STALE'
    end
end
if raise then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    -- At least the time (us): were this hash lost alone, counting from 1 would leave older entries
    -- valid.
    local seq = math.max(redis.call('HINCRBY', KEYS[1], 'seq', 1), time[1] * 1000000 + time[2])
    redis.call('HSET', KEYS[1], 'seq', seq)
    redis.call('HSETNX', KEYS[1], '*', 0)
    redis.call('HSET', KEYS[1], 'run', ARGV[1])
    redis.call('HSET', KEYS[1], '*', seq) -- guard:attach-star
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[4]), '*') -- guard:attach-dirty
    if answer == 'OK' then answer = 'RAISED' end
end
return answer
