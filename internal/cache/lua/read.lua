#!lua flags=allow-oom
-- READ: replies with a valid value, or with another reader's lease, or gives the caller a lease.
-- KEYS: entry, gen, dirty. ARGV: token for a new lease, TTL of a lease (ms), format, entity tags of the
-- client ...
-- Replies: HIT + entry; NOT-MODIFIED + first two lines of the entry; WAIT + token + seq; MISS + seq + dirty
-- (1: written less than M ago); UNATTACHED.
local run, seq, star = unpack(redis.call('HMGET', KEYS[2], 'run', 'seq', '*'))
if not run then return {'UNATTACHED'} end

local entry = redis.call('GET', KEYS[1])
if entry and entry:sub(1, 1) == 'L' then return {'WAIT', entry:sub(2), tonumber(seq)} end -- guard:wait
if entry then
    local format, at, etag, deps = entry:match('^V(%S+) (%d+) (%S+) (%S+)\n')
    local valid = at ~= nil
    if format ~= ARGV[3] then valid = false end -- guard:format
    if valid then
        at = tonumber(at)
        if at < tonumber(star) then valid = false end -- guard:read-star
        if deps ~= '-' then
            local names = {}
            for name in deps:gmatch('[^,]+') do names[#names + 1] = name end
            for _, raised in ipairs(redis.call('HMGET', KEYS[2], unpack(names))) do
                if raised and tonumber(raised) > at then valid = false end -- guard:read-deps
            end
        end
    end
    if valid then
        for i = 4, #ARGV do
            if ARGV[i] == etag or ARGV[i] == '*' then
                return {'NOT-MODIFIED', entry:match('^[^\n]*\n[^\n]*\n')}
            end
        end
        return {'HIT', entry}
    end
end

redis.call('SET', KEYS[1], 'L' .. ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local dirty = 0
for _, expiry in ipairs(redis.call('ZMSCORE', KEYS[3], KEYS[1], '*')) do
    if expiry and tonumber(expiry) > now then dirty = 1 end -- guard:dirty
end
return {'MISS', tonumber(seq), dirty}
