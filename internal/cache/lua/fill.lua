#!lua
-- FILL: stores the document that a lease holder loaded, if it is certain that the document is not older than
-- a write that was acknowledged. Otherwise it replies with the reason and removes the lease. With a TTL of
-- 0 it only removes the lease.
-- KEYS: entry, gen, dirty. ARGV: token of the lease, seq at READ, server (replica or primary), its system
-- identifier and timeline ("<system>/<timeline>"), header (with format, etag and dependencies), TTL (ms),
-- rest of the value, dependencies ...
-- Replies: OK, or lease, released, unattached, star, timeline, dependency, dirty.
if redis.call('GET', KEYS[1]) ~= 'L' .. ARGV[1] then return 'lease' end -- guard:lease

local function refuse(reason)
    redis.call('UNLINK', KEYS[1])
    return reason
end

if ARGV[6] == '0' then return refuse('released') end
local seq = tonumber(ARGV[2])
local run, star, system, timeline = unpack(redis.call('HMGET', KEYS[2], 'run', '*', 'sys', 'tli'))
if not run then return refuse('unattached') end
if tonumber(star) > seq then return refuse('star') end -- guard:fill-star
if system .. '/' .. timeline ~= ARGV[4] then return refuse('timeline') end -- guard:fill-timeline

if #ARGV > 7 then
    local deps = {unpack(ARGV, 8)}
    for _, raised in ipairs(redis.call('HMGET', KEYS[2], unpack(deps))) do
        if raised and tonumber(raised) > seq then return refuse('dependency') end -- guard:fill-deps
    end
    if ARGV[3] == 'replica' then
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        for _, expiry in ipairs(redis.call('ZMSCORE', KEYS[3], unpack(deps))) do
            if expiry and tonumber(expiry) > now then return refuse('dirty') end -- guard:fill-dirty
        end
    end
end
redis.call('SET', KEYS[1], ARGV[5] .. ARGV[7], 'PX', ARGV[6])
return 'OK'
