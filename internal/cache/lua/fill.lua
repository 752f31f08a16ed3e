#!lua
-- FILL: stores what a lease holder loaded, unless anything says that it may be old by now. A refusal
-- names its reason and gives the lease back. Without a time to live it only gives the lease back.
-- KEYS: entry, gen, dirty. ARGV: my token, seq at READ, source (replica or primary), its system
-- identifier and timeline ("<system>/<timeline>"), header (format, etag and deps are in it), time to
-- live (ms), rest of the value, dependencies ...
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
