-- The requests of bench/run for wrk, and the check of every answer. One thread.
--   wrk -t1 … -s bench/load.lua URL -- KIND STATUS BEGINNING LEAST_BYTES RUN TOKENS [MANAGER_TOKEN]
-- KIND names the request; an answer must have STATUS, begin with BEGINNING (a Lua string) and have LEAST_BYTES bytes; RUN
-- makes clientMsgNo differ from every other run's; TOKENS is a file with a JWT for u000, u001, … on each line.

local PAYLOAD = "eyJ0eXBlIjoxLCJjb250ZW50IjoiYSBtZXNzYWdlIG9mIHRoZSBiZW5jaG1hcmssIGFzIGxvbmcgYXMgcGVvcGxlIHdyaXRlIHRoZW0ifQ=="
local CHANNELS, BATCH = 50, 50
local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

local count = 0
local next_request
local number_format

local function head(method, path, token, length)
  local lines = { method .. " " .. path .. " HTTP/1.1", "Host: " .. wrk.headers["Host"] }
  if token then lines[#lines + 1] = "Authorization: Bearer " .. token end
  if length then
    lines[#lines + 1] = "Content-Type: application/json"
    lines[#lines + 1] = "Content-Length: " .. length
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- A number that nobody used before, always equally long.
local function number()
  count = count + 1
  return string.format(number_format, count)
end

-- One message: head and tail made once for each user and channel, so that wrk does little for each request.
local function message(id, channel_type)
  return '{"channelId":"' .. id .. '","channelType":' .. channel_type .. ',"payload":"' .. PAYLOAD .. '","clientMsgNo":"', '"}'
end

-- What the gateway would send to WuKongIM, for sending to it directly.
local function upstream_message(from, id, channel_type)
  return '{"header":{"red_dot":1},"from_uid":"' .. from .. '","channel_id":"' .. id .. '","channel_type":' .. channel_type
    .. ',"payload":"' .. PAYLOAD .. '","client_msg_no":"', '"}'
end

-- Requests for every user and channel in turn; `make` gives what stands before and after the number.
local function in_turn(users, channels, make)
  local made = {}
  for user = 1, users do
    for channel = 1, channels do made[#made + 1] = { make(user, channel) } end
  end
  -- One more than the channels: the next channel, and from the next user.
  local place, step = 0, channels > 1 and channels + 1 or 1
  return function()
    place = (place + step) % #made
    local parts = made[place + 1]
    return parts[1] .. number() .. parts[2]
  end
end

local function sends(tokens, channels, make)
  local length = #number()
  return in_turn(#tokens, channels, function(user, channel)
    local first, last = make(user, channel)
    return head("POST", "/api/v1/im/message/send", tokens[user], #first + length + #last) .. first, last
  end)
end

-- These requests, one after the other, again and again.
local function cycle(requests)
  local place = 0
  return function()
    place = place % #requests + 1
    return requests[place]
  end
end

-- A GET of each user.
local function of_each(tokens, path)
  local requests = {}
  for user = 1, #tokens do requests[user] = head("GET", path, tokens[user]) end
  return cycle(requests)
end

local kinds = {}

kinds["health"] = function()
  local request = head("GET", "/api/v1/im/health")
  return function() return request end
end

kinds["config"] = function(tokens) return of_each(tokens, "/api/v1/im/config") end

kinds["send-person"] = function(tokens)
  return sends(tokens, 1, function(user) return message(string.format("peer%03d", user), 1) end)
end

kinds["send-group"] = function(tokens)
  return sends(tokens, CHANNELS, function(_, channel) return message(string.format("bench-group%03d", channel), 2) end)
end

kinds["batch"] = function(tokens)
  local user = 0
  return function()
    user = user % #tokens + 1
    local items = {}
    for item = 1, BATCH do
      local first, last = message(string.format("bench-group%03d", item % 10 + 1), 2)
      items[item] = first .. number() .. last
    end
    local body = "[" .. table.concat(items, ",") .. "]"
    return head("POST", "/api/v1/im/message/sendbatch", tokens[user], #body) .. body
  end
end

kinds["sync"] = function(tokens) return of_each(tokens, "/api/v1/im/message/sync?channelId=history&channelType=2&limit=50") end

-- Of more users than are served while one's list is shared, so that each is walked anew.
kinds["conversations"] = function(tokens) return of_each(tokens, "/api/v1/im/conversation/list?limit=50") end

-- The calls of v2 that it makes for that, in turn.
kinds["conversations-v2"] = function()
  local calls = {}
  for _, path in ipairs({ "cluster/channels", "conversation/sync", "conversation/channels" }) do
    calls[#calls + 1] = head("GET", "/api/v1/im/" .. path)
  end
  return cycle(calls)
end

kinds["members"] = function(tokens) return of_each(tokens, "/api/v1/im/channel/subscribers?channelId=members&channelType=2&limit=100") end

kinds["anonymous"] = function()
  return sends({ false }, 1, function() return message("peer001", 1) end)
end

-- Good but for its payload, which is no base64.
kinds["invalid"] = function(tokens)
  return sends(tokens, 1, function(user)
    local first, last = message(string.format("peer%03d", user), 1)
    return first:gsub(PAYLOAD, "no base64!"), last
  end)
end

-- Straight to WuKongIM, past the gateway.
local function direct(tokens, channels, make, manager_token)
  local length = #number()
  return in_turn(#tokens, channels, function(user, channel)
    local first, last = make(string.format("u%03d", user - 1), user, channel)
    local start = head("POST", "/message/send", nil, #first + length + #last)
    if manager_token then start = start:gsub("\r\n\r\n$", "\r\ntoken: " .. manager_token .. "\r\n\r\n") end
    return start .. first, last
  end)
end

kinds["direct-person"] = function(tokens, manager_token)
  return direct(tokens, 1, function(from, user)
    return upstream_message(from, string.format("peer%03d", user), 1)
  end, manager_token)
end

kinds["direct-group"] = function(tokens, manager_token)
  return direct(tokens, CHANNELS, function(from, _, channel)
    return upstream_message(from, string.format("bench-group%03d", channel), 2)
  end, manager_token)
end

local want_status, want_beginning, want_bytes

function init(args)
  local kind, run, file = args[1], args[5], args[6]
  want_status, want_beginning, want_bytes = tonumber(args[2]), args[3], tonumber(args[4])
  number_format = run .. "-%08d"
  local tokens = {}
  for line in io.lines(file) do tokens[#tokens + 1] = line end
  next_request = assert(kinds[kind], "no such kind of request: " .. kind)(tokens, args[7])
  checked, bad, sample = 0, 0, ""
end

function request()
  return next_request()
end

function response(status, _, body)
  checked = checked + 1
  -- A send that is not seen stored has no seq: never an answer to count.
  if status ~= want_status or #body < want_bytes or body:sub(1, #want_beginning) ~= want_beginning
    or body:find('"messageSeq":0', 1, true) then
    bad = bad + 1
    if sample == "" then sample = status .. " " .. body:sub(1, 300):gsub("%s", " ") end
  end
end

function done(summary, latency)
  local checked, bad, sample = 0, 0, ""
  for _, thread in ipairs(threads) do
    checked, bad = checked + thread:get("checked"), bad + thread:get("bad")
    sample = thread:get("sample")
  end
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("RESULT\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", checked, bad, broken, summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99)))
  if sample ~= "" then io.write("UNEXPECTED\t" .. sample .. "\n") end
end
