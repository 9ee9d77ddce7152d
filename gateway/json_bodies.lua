-- Rejects errors in a JSON request under /v1 that the transcoder would accept, or
-- reject without naming the field, with the status 400 and the field:
-- - unknown fields and query parameters, and duplicates of them
-- - null for a field that cannot be null
-- - numbers that a double would round
-- - text that is not valid JSON (RFC 8259)
-- - a query parameter without a name or value, or with a value of the wrong type
-- - a body, a query parameter or a conditional header that the method does not have
--
-- embedded/envoy_config.py prepends the table body_messages: the fields of each
-- message, by both spellings of their names (lowerCamelCase and as in the proto).
-- A field has a name, a type and optionally a shape ("list" or "map"). A type is
-- "string", "number" (a double), "integer", "boolean", "value" (any JSON), "struct"
-- (a JSON object), "list" (a JSON list), "time", "duration", "enum" (its values has the
-- names of the values, between commas), or a message's name.
--
-- The route's filter context has the HTTP methods of a path (JsonBodies.methods):
-- query      parameters, between spaces, with their types
-- lists      parameters that may be repeated, between spaces
-- field      the request's field that is the body, "*" for the whole request; nil without a body
-- message    the body's message
-- variables  the fields of the body that are variables of the path as well, between spaces
-- pattern    finds their values in a path
-- raw        whether the body is bytes, which are not checked

local byte, find, sub = string.byte, string.find, string.sub

local MAX_DEPTH = 64  -- more than the server accepts, which is 30 in a value
local MAX_SHOWN = 120

local WANTED = {
  string = "a string", number = "a number", integer = "an integer", boolean = "true or false",
  value = "a JSON value", struct = "an object", list = "a list",
  time = "a time such as 2026-01-31T23:59:59Z (RFC 3339)", duration = "a duration such as 86400s",
}

-- ---- Errors

local function path_text(path)
  local text = ""
  for _, part in ipairs(path) do
    if type(part) == "number" then
      text = text .. "[" .. part .. "]"
    else
      text = text == "" and part or text .. "." .. part
    end
  end
  return text
end

-- Returns a text, truncated so that errors stay small, but not inside of a character.
local function shown(text)
  if #text <= MAX_SHOWN then
    return text
  end
  local last = MAX_SHOWN
  while last > 0 and byte(text, last + 1) >= 0x80 and byte(text, last + 1) < 0xC0 do
    last = last - 1
  end
  return sub(text, 1, last) .. "…"
end

-- The patterns of all UTF-8 characters beyond ASCII (RFC 3629).
local SEQUENCES = {
  "[\194-\223][\128-\191]", "\224[\160-\191][\128-\191]", "[\225-\236\238\239][\128-\191][\128-\191]",
  "\237[\128-\159][\128-\191]", "\240[\144-\191][\128-\191][\128-\191]",
  "[\241-\243][\128-\191][\128-\191][\128-\191]", "\244[\128-\143][\128-\191][\128-\191]",
}

local function is_utf8(text)
  if not find(text, "[\128-\255]") then
    return true
  end
  for _, sequence in ipairs(SEQUENCES) do
    text = string.gsub(text, sequence, ".")
  end
  return not find(text, "[\128-\255]")
end

-- Returns a text; if it is not UTF-8, with "?" in place of bytes that are not ASCII.
local function printable(text)
  return is_utf8(text) and text or (string.gsub(text, "[\128-\255]", "?"))
end

local ESCAPED = {['"'] = '\\"', ["\\"] = "\\\\"}

local function quoted(text)
  return '"' .. string.gsub(printable(text), '[%z\1-\31"\\\127]', function(character)
    return ESCAPED[character] or string.format("\\u%04x", byte(character))
  end) .. '"'
end

-- Returns the response, a google.rpc.Status as from a server.
local function status_json(field, description, request_id)
  local types = "type.googleapis.com/google.rpc."
  return '{"code":3,"message":' .. quoted(field .. ": " .. description)
    .. ',"details":[{"@type":"' .. types .. 'ErrorInfo","reason":"GATEWAY_INVALID_REQUEST","domain":"modelregistry",'
    .. '"metadata":{"field":' .. quoted(field) .. '}},{"@type":"' .. types .. 'BadRequest","field_violations":[{"field":'
    .. quoted(field) .. ',"description":' .. quoted(description) .. '}]},{"@type":"' .. types
    .. 'RequestInfo","request_id":' .. quoted(request_id) .. "}]}\n"
end

local function refuse(handle, field, description)
  handle:respond({[":status"] = "400", ["content-type"] = "application/json"},
    status_json(field, description, handle:headers():get("x-request-id") or ""))
end

-- Returns the edit distance of two texts (Levenshtein).
local function distance(one, other)
  local row = {}
  for j = 0, #other do
    row[j] = j
  end
  for i = 1, #one do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #other do
      local replaced = diagonal + (byte(one, i) == byte(other, j) and 0 or 1)
      diagonal = row[j]
      row[j] = math.min(replaced, row[j] + 1, row[j - 1] + 1)
    end
  end
  return row[#other]
end

-- Returns the name most similar to a key; nil if none is similar.
local function nearest(fields, key)
  local plain = string.lower((string.gsub(key, "[_%-]", "")))
  if #plain < 3 or #plain > 40 then
    return nil
  end
  local best, least
  for _, field in pairs(fields) do
    local name = (string.gsub(field.name, "_", ""))
    local away = distance(name, plain)
    local is_prefix = #plain > 3 and (sub(name, 1, #plain) == plain or sub(plain, 1, #name) == name)
    -- At most two typing errors, and one in a short name.
    local is_near = away <= (#plain > 5 and 2 or 1) or is_prefix
    if is_near and (least == nil or away < least or away == least and field.name < best) then
      best, least = field.name, away
    end
  end
  return best
end

-- Returns whether a text is one of the values of an enum as the transcoder reads them: a name in any case, or a number. They are
-- numbered in their order; the one that means nothing, 0, need not be among the names.
local function is_enum_value(value, names)
  local wanted = string.upper((string.gsub(value, "-", "_")))
  local count = find(names, "^[%w_]+_UNSPECIFIED,") and 0 or 1
  for name in string.gmatch(names, "[^,]+") do
    if name == wanted then
      return true
    end
    count = count + 1
  end
  return find(value, "^%d+$") ~= nil and tonumber(value) < count
end

-- Returns whether the digits of an integer, with or without a sign, fit in 64 bits.
local function is_int64(literal)
  local sign, digits = string.match(literal, "^(%-?)0*(%d+)$")
  local largest = sign == "-" and "9223372036854775808" or "9223372036854775807"
  return #digits < #largest or #digits == #largest and digits <= largest
end

local DAYS = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

-- Returns whether a text is a time. The transcoder accepts no lower-case letters.
local function is_time(text)
  local year, month, day, hour, minute, second, zone =
    string.match(text, "^(%d%d%d%d)%-(%d%d)%-(%d%d)T(%d%d):(%d%d):(%d%d)%.?%d*(.+)$")
  if year == nil or not (zone == "Z" or find(zone, "^[+-]%d%d:%d%d$")) then
    return false
  end
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  local is_leap = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  local last = month == 2 and is_leap and 29 or DAYS[month] or 0
  return year > 0 and day > 0 and day <= last
    and tonumber(hour) < 24 and tonumber(minute) < 60 and tonumber(second) < 60
end

-- Returns whether a text is a google.protobuf.Duration, which is 10,000 years at most.
local function is_duration(text)
  local seconds = string.match(text, "^%-?(%d+)%.?%d*s$")
  return seconds ~= nil and tonumber(seconds) <= 315576000000
end

-- Returns the names of an enum's values for an error, without the unspecified one.
local function one_of(names)
  return "one of " .. string.gsub(string.gsub(names, "^[%w_]+_UNSPECIFIED,", ""), ",", ", ")
end

-- ---- The body

-- Checks the body of a method; raises {field, description}. Fields that are variables of the path must have the same
-- values as there (path_values).
local function check(text, method, path_values)
  -- The path of the present value from the request's root.
  local path = {method.field ~= "*" and method.field or nil}
  local depth_of_body = #path
  local walk

  local function fault(description)
    error({field = #path == depth_of_body and "body" or shown(path_text(path)), description = description}, 0)
  end

  local function no_json(at)
    if at > #text then
      fault("the JSON is incomplete.")
    end
    fault("is not valid JSON (RFC 8259, byte " .. at .. ").")
  end

  local function skip(at)
    if (byte(text, at) or 0) > 32 then
      return at
    end
    local _, last = find(text, "^[ \t\r\n]*", at)
    return last + 1
  end

  -- Returns the position of a string's closing quotation mark, and whether the string has escapes.
  local function string_end(at)
    local escaped = false
    local position = at + 1
    while true do
      local special = find(text, '[%z\1-\31"\\]', position)
      if special == nil then
        no_json(#text + 1)
      end
      local character = byte(text, special)
      if character == 34 then
        if not is_utf8(sub(text, at + 1, special - 1)) then
          fault("must be UTF-8.")
        end
        return special, escaped
      end
      if character ~= 92 then
        no_json(special)
      end
      escaped = true
      if find(text, '^["\\/bfnrt]', special + 1) then
        position = special + 2
      elseif find(text, "^u%x%x%x%x", special + 1) then
        position = special + 6
        local is_high = find(text, "^u[dD][89abAB]", special + 1) ~= nil
        if is_high and find(text, "^\\u[dD][c-fC-F]%x%x", position) then
          position = position + 6
        elseif is_high or find(text, "^u[dD]%x", special + 1) and not find(text, "^u[dD][0-7]", special + 1) then
          fault("has half of a surrogate pair (byte " .. special .. ").")
        end
      else
        no_json(special)
      end
    end
  end

  local CONTROLS = {b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

  local function utf8(code)
    if code < 0x80 then
      return string.char(code)
    end
    local tail = string.char(0x80 + code % 0x40)
    code = math.floor(code / 0x40)
    if code < 0x20 then
      return string.char(0xC0 + code) .. tail
    end
    tail = string.char(0x80 + code % 0x40) .. tail
    code = math.floor(code / 0x40)
    if code < 0x10 then
      return string.char(0xE0 + code) .. tail
    end
    return string.char(0xF0 + math.floor(code / 0x40), 0x80 + code % 0x40) .. tail
  end

  -- Returns the text of a string.
  local function unescaped(raw)
    local parts = {}
    local position = 1
    while true do
      local escape = find(raw, "\\", position, true)
      if escape == nil then
        table.insert(parts, sub(raw, position))
        return table.concat(parts)
      end
      table.insert(parts, sub(raw, position, escape - 1))
      local letter = sub(raw, escape + 1, escape + 1)
      position = escape + 2
      if letter == "u" then
        local code = tonumber(sub(raw, position, position + 3), 16)
        position = position + 4
        local _, last, low = find(raw, "^\\u([dD][c-fC-F]%x%x)", position)
        if code >= 0xD800 and code < 0xDC00 and last ~= nil then
          code = 0x10000 + (code - 0xD800) * 0x400 + tonumber(low, 16) - 0xDC00
          position = last + 1
        end
        table.insert(parts, utf8(code))
      else
        table.insert(parts, CONTROLS[letter] or letter)
      end
    end
  end

  local function check_number(kind, whole, fraction, exponent, literal)
    local number = tonumber(literal)
    if number == math.huge or number == -math.huge or (number == 0 and find(whole .. fraction, "[1-9]")) then
      fault(shown(literal) .. " is beyond the range of a double.")
    end
    if fraction == "" and exponent == "" and #whole > 15 and string.format("%.0f", number) ~= literal then
      fault(shown(literal) .. " cannot be stored exactly as a double."
        .. (kind == "value" and " Write it as a string." or ""))
    end
  end

  local NUMBER = "^%-?(%d+)(%.?%d*)([eE]?[%+%-]?%d*)"

  local function is_number(whole, fraction, exponent)
    return (whole == "0" or byte(whole) ~= 48)
      and (fraction == "" or #fraction > 1)
      and (exponent == "" or find(exponent, "^[eE][%+%-]?%d+$") ~= nil)
  end

  -- Checks an object: a message by its fields, another object by the type of all of its values.
  local function walk_object(at, fields, inner, depth)
    local seen = {}
    local depth_of_path = #path + 1
    at = skip(at + 1)
    if byte(text, at) == 125 then
      return at + 1
    end
    while true do
      if byte(text, at) ~= 34 then
        no_json(at)
      end
      local last, escaped = string_end(at)
      local key = sub(text, at + 1, last - 1)
      if escaped then
        key = unescaped(key)
      end
      path[depth_of_path] = shown(key)
      local field = inner
      local name = key
      if fields ~= nil then
        field = fields[key]
        if field == nil then
          local near = nearest(fields, key)
          fault("unknown field." .. (near and " Did you mean " .. near .. "?" or ""))
        end
        name = field.name
      end
      if seen[name] then
        fault(name == key and "is set twice." or "is set twice, also as " .. seen[name] .. ".")
      end
      seen[name] = key
      at = skip(last + 1)
      if byte(text, at) ~= 58 then
        no_json(at)
      end
      local first = skip(at + 1)
      local behind = walk(first, field, field.shape, depth + 1)
      if depth == 0 and path_values[name] ~= nil and unescaped(sub(text, first + 1, behind - 2)) ~= path_values[name] then
        fault("must be the same as in the path.")
      end
      at = skip(behind)
      path[depth_of_path] = nil
      local separator = byte(text, at)
      if separator == 125 then
        return at + 1
      end
      if separator ~= 44 then
        no_json(at)
      end
      at = skip(at + 1)
    end
  end

  local function walk_list(at, inner, depth)
    local depth_of_path = #path + 1
    local index = 0
    at = skip(at + 1)
    if byte(text, at) == 93 then
      return at + 1
    end
    while true do
      path[depth_of_path] = index
      at = skip(walk(at, inner, nil, depth + 1))
      path[depth_of_path] = nil
      index = index + 1
      local separator = byte(text, at)
      if separator == 93 then
        return at + 1
      end
      if separator ~= 44 then
        no_json(at)
      end
      at = skip(at + 1)
    end
  end

  local ANY = {type = "value"}

  -- Checks a value of a field, and returns the position after it. The shape is a separate argument, as an element of a
  -- list has none.
  function walk(at, field, shape, depth)
    if depth > MAX_DEPTH then
      fault("is nested deeper than " .. MAX_DEPTH .. ".")
    end
    local kind = field.type
    local message = body_messages[kind]
    local wanted = shape == "list" and "a list" or (shape == "map" or message) and "an object"
      or kind == "enum" and one_of(field.values) or WANTED[kind]
    local is_scalar = shape == nil and message == nil
    local first = byte(text, at)
    if first == 34 then
      if not is_scalar or kind == "boolean" or kind == "struct" or kind == "list" then
        fault("must be " .. wanted .. ", not a string.")
      end
      local last = string_end(at)
      local check_text = kind == "enum" and is_enum_value or kind == "time" and is_time or kind == "duration" and is_duration
      if check_text and not check_text(unescaped(sub(text, at + 1, last - 1)), field.values) then
        fault("must be " .. wanted .. ", not " .. shown(sub(text, at, last)) .. ".")
      end
      if kind == "number" or kind == "integer" then
        local _, number_end, whole, fraction, exponent = find(text, NUMBER, at + 1)
        local is_whole = fraction == "" and exponent == ""
        if number_end ~= last - 1 or not is_number(whole, fraction, exponent) or kind == "integer" and not is_whole then
          fault("must be " .. wanted .. ", not " .. shown(sub(text, at, last)) .. ".")
        elseif kind == "integer" and not is_int64(sub(text, at + 1, number_end)) then
          fault("must be an integer of 64 bits, not " .. shown(sub(text, at, last)) .. ".")
        elseif kind == "number" then
          check_number(kind, whole, fraction, exponent, sub(text, at + 1, number_end))
        end
      end
      return last + 1
    end
    if first == 123 then
      if shape == "map" then
        return walk_object(at, nil, {type = kind, values = field.values}, depth)
      elseif shape == nil and message ~= nil then
        return walk_object(at, message, nil, depth)
      elseif shape == nil and (kind == "value" or kind == "struct") then
        return walk_object(at, nil, ANY, depth)
      end
      fault("must be " .. wanted .. ", not an object.")
    end
    if first == 91 then
      if shape == "list" then
        return walk_list(at, field, depth)
      elseif shape == nil and (kind == "value" or kind == "list") then
        return walk_list(at, ANY, depth)
      end
      fault("must be " .. wanted .. ", not a list.")
    end
    local _, last, whole, fraction, exponent = find(text, NUMBER, at)
    if last ~= nil then
      if not is_number(whole, fraction, exponent) then
        no_json(at)
      end
      if not is_scalar or (kind ~= "number" and kind ~= "integer" and kind ~= "value") then
        fault("must be " .. wanted .. ", not a number.")
      end
      local literal = sub(text, at, last)
      if kind ~= "integer" then
        check_number(kind, whole, fraction, exponent, literal)
      elseif fraction == "" and exponent == "" and not is_int64(literal) or math.abs(tonumber(literal)) > 2^63 then
        fault("must be an integer of 64 bits, not " .. shown(literal) .. ".")
      elseif tonumber(literal) % 1 ~= 0 then
        fault("must be an integer, not " .. shown(literal) .. ".")
      end
      return last + 1
    end
    local word
    _, last, word = find(text, "^(%-?%a+)", at)
    if word == "true" or word == "false" then
      if not is_scalar or (kind ~= "boolean" and kind ~= "value") then
        fault("must be " .. wanted .. ", not " .. word .. ".")
      end
      return last + 1
    elseif word == "null" then
      if shape ~= nil or kind ~= "value" then
        fault("must be " .. wanted .. ", not null. Omit it where there is no value.")
      end
      return last + 1
    elseif word == "NaN" or word == "Infinity" or word == "-Infinity" then
      fault("must be a finite number, not " .. word .. ". Omit it where there is no value.")
    end
    no_json(at)
  end

  local at = skip(walk(skip(1), {type = method.message}, nil, 0))
  if at <= #text then
    no_json(at)
  end
end

-- ---- The filter

local function percent_decoded(text)
  return (string.gsub(text, "%%(%x%x)", function(digits)
    return string.char(tonumber(digits, 16))
  end))
end

local function unescape_query(text)
  return percent_decoded((string.gsub(text, "%+", " ")))
end

-- Returns the fields of the body that are variables of the path, with their values.
local function values_of_path(path, method)
  local found = {string.match(string.match(path, "^[^?]*"), method.pattern)}
  local values = {}
  for name in string.gmatch(method.variables, "%S+") do
    values[name] = percent_decoded(table.remove(found, 1) or "")
  end
  return values
end

-- The values of a bool that the transcoder accepts.
local BOOLS = {
  ["true"] = true, t = true, yes = true, y = true, ["1"] = true,
  ["false"] = true, f = true, no = true, n = true, ["0"] = true,
}

-- Returns what is wrong with a query parameter; nil if nothing is. The transcoder's error would not name the field.
local function problem_of(name, value, known)
  local _, at = find(known, " " .. name .. "=", 1, true)
  if at == nil then
    local fields = {}
    for other in string.gmatch(known, "(%S+)=") do
      table.insert(fields, {name = other})
    end
    local near = nearest(fields, name)
    return "unknown query parameter." .. (near and " Did you mean " .. near .. "?" or "")
  end
  if not is_utf8(value) then
    return "must be UTF-8."
  end
  local kind, names = string.match(known, "^(%w+),?(%S*)", at + 1)
  local not_this = ", not " .. shown(quoted(value)) .. "."
  if kind == "int32" or kind == "int64" then
    if not find(value, "^%-?%d+$") then
      return "must be an integer" .. not_this
    elseif kind == "int32" and math.abs(tonumber(value)) > 2147483647 then
      return "must be an integer of 32 bits" .. not_this
    elseif not is_int64(value) then
      return "must be an integer of 64 bits" .. not_this
    end
  elseif kind == "double" and tonumber(value) == nil then
    return "must be a number" .. not_this
  elseif kind == "bool" and not BOOLS[string.lower(value)] then
    return "must be true or false" .. not_this
  elseif kind == "time" and not is_time(value) then
    return "must be " .. WANTED.time .. not_this
  elseif kind == "enum" and not is_enum_value(value, names) then
    return "must be " .. one_of(names) .. not_this
  end
end

-- Rejects a query parameter that is a field of the body, that the method does not have (a variable of the path would be
-- replaced: DELETE /v1/models/a?model_id=b would delete b), that is repeated (the transcoder would take the last one), or
-- that has no name or no equals sign (the transcoder would ignore it).
local function check_query(handle, query, method)
  local seen = {}
  for pair in string.gmatch(query, "[^&]+") do
    local key = unescape_query(string.match(pair, "^[^=]*"))
    if key == "" then
      refuse(handle, shown(unescape_query(pair)), "has no name; a query parameter is written as name=value.")
      return false
    end
    if not find(pair, "=", 1, true) then
      refuse(handle, shown(key), "has no value; a query parameter is written as name=value.")
      return false
    end
    -- The transcoder accepts both spellings.
    local name = string.gsub(key, "%u", function(letter) return "_" .. string.lower(letter) end)
    if method.field == "*" or (method.field ~= nil and string.match(name, "^[^.]*") == method.field) then
      refuse(handle, shown(key), "must be in the body, not in the query.")
      return false
    end
    local description = problem_of(name, unescape_query(string.match(pair, "=(.*)$")), method.query)
    if description ~= nil then
      refuse(handle, shown(key), description)
      return false
    end
    if seen[name] and not find(method.lists, " " .. name .. " ", 1, true) then
      refuse(handle, shown(key), "is set twice.")
      return false
    end
    seen[name] = true
  end
  return true
end

-- Conditional headers (RFC 9110, 13.1). The server supports If-Match for methods with an etag, and would ignore others.
local CONDITIONS = {"if-match", "if-none-match", "if-unmodified-since"}

local function has_etag(method)
  local message = method.message and body_messages[method.message]
  return find(method.query, " etag=", 1, true) ~= nil or (message ~= nil and message.etag ~= nil)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local verb = headers:get(":method")
  local method = handle:filterContext():get(verb)
  if method == nil then
    return  -- 405
  end
  if verb ~= "GET" and verb ~= "HEAD" then
    for _, name in ipairs(CONDITIONS) do
      if headers:get(name) ~= nil and not (name == "if-match" and has_etag(method)) then
        refuse(handle, name, "is not supported by this method.")
        return
      end
    end
  end
  local path = headers:get(":path")
  local query = string.match(path, "%?(.*)$")
  if query ~= nil and not check_query(handle, query, method) then
    return
  end
  if method.raw then
    return
  end
  local body = handle:body()
  if body == nil or body:length() == 0 then
    return  -- as an empty message
  end
  if method.message == nil then
    refuse(handle, "body", "must be empty. Use query parameters instead.")
    return
  end
  local text = body:getBytes(0, body:length())
  local valid, problem = pcall(check, text, method, values_of_path(path, method))
  if not valid then
    if type(problem) == "table" then
      refuse(handle, problem.field, problem.description)
    else
      -- After an error in a filter, Envoy would let the request pass.
      handle:logErr("could not check a JSON body: " .. tostring(problem))
      handle:respond({[":status"] = "500"}, "Internal Server Error")
    end
  end
end
