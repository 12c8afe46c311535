// The partner's side of the signature, in plain JavaScript: no module, no host object is needed, so
// that a bare V8 and Node run the same text.

// What `JSON.stringify(JSON.parse(body))` gives back, and the signature over that.
function partner(body, timestamp, secret) {
  const written = JSON.stringify(JSON.parse(body));
  return { written, signature: hmacSha256(utf8(secret), utf8(`${written}|${timestamp}`)) };
}

// The numbers, joined by commas, of those [body, timestamp, signature] that this side contradicts.
function disagreements(signed, secret) {
  const numbers = signed.flatMap(([body, timestamp, signature], number) => {
    const own = partner(body, timestamp, secret);
    return own.written === body && own.signature === signature ? [] : [number];
  });
  return numbers.join();
}

function hmacSha256(key, message) {
  const padded = new Uint8Array(64);
  padded.set(key.length > 64 ? sha256(key) : key);
  const inner = sha256(joined(padded.map((byte) => byte ^ 0x36), message));
  const digest = sha256(joined(padded.map((byte) => byte ^ 0x5c), inner));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function joined(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

function utf8(text) {
  const bytes = new Uint8Array(text.length * 3);
  let length = 0;
  for (const character of text) {
    const code = character.codePointAt(0);
    if (code < 0x80) {
      bytes[length++] = code;
    } else if (code < 0x800) {
      bytes[length++] = 0xc0 | (code >> 6);
      bytes[length++] = 0x80 | (code & 0x3f);
    } else if (code < 0x10000) {
      // Half a surrogate pair becomes U+FFFD, as in every TextEncoder.
      const whole = code >= 0xd800 && code <= 0xdfff ? 0xfffd : code;
      bytes[length++] = 0xe0 | (whole >> 12);
      bytes[length++] = 0x80 | ((whole >> 6) & 0x3f);
      bytes[length++] = 0x80 | (whole & 0x3f);
    } else {
      bytes[length++] = 0xf0 | (code >> 18);
      bytes[length++] = 0x80 | ((code >> 12) & 0x3f);
      bytes[length++] = 0x80 | ((code >> 6) & 0x3f);
      bytes[length++] = 0x80 | (code & 0x3f);
    }
  }
  return bytes.subarray(0, length);
}

// SHA-256 as FIPS 180-4 has it. Its constants are computed: the first 32 bits of the fractional
// parts of the cube roots of the first 64 primes, and of the square roots of the first 8.
function primes(count) {
  const found = [];
  for (let candidate = 2n; found.length < count; candidate++) {
    if (found.every((prime) => candidate % prime !== 0n)) found.push(candidate);
  }
  return found;
}

function rootBits(number, power) {
  const scaled = number << (32n * power);
  let low = 0n;
  let high = 1n << 48n;
  while (high - low > 1n) {
    const middle = (low + high) >> 1n;
    if (middle ** power <= scaled) low = middle;
    else high = middle;
  }
  return Number(low & 0xffffffffn);
}

const ROUNDS = Int32Array.from(primes(64), (prime) => rootBits(prime, 3n));
const START = Int32Array.from(primes(8), (prime) => rootBits(prime, 2n));

function sha256(message) {
  const blocks = (message.length + 9 + 63) >> 6;
  const padded = new Uint8Array(blocks * 64);
  padded.set(message);
  padded[message.length] = 0x80;
  new DataView(padded.buffer).setBigUint64(padded.length - 8, BigInt(message.length) * 8n);
  const state = START.slice();
  const words = new Int32Array(64);
  for (let block = 0; block < blocks; block++) compress(state, words, padded, block * 64);
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, place) => digest.setInt32(place * 4, word));
  return new Uint8Array(digest.buffer);
}

function compress(state, words, bytes, at) {
  for (let i = 0; i < 16; i++) {
    const p = at + i * 4;
    words[i] = (bytes[p] << 24) | (bytes[p + 1] << 16) | (bytes[p + 2] << 8) | bytes[p + 3];
  }
  for (let i = 16; i < 64; i++) {
    const x = words[i - 15];
    const y = words[i - 2];
    const s0 = turned(x, 7) ^ turned(x, 18) ^ (x >>> 3);
    const s1 = turned(y, 17) ^ turned(y, 19) ^ (y >>> 10);
    words[i] = (words[i - 16] + s0 + words[i - 7] + s1) | 0;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const s1 = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25);
    const first = (h + s1 + ((e & f) ^ (~e & g)) + ROUNDS[i] + words[i]) | 0;
    const s0 = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22);
    const second = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + first) | 0;
    d = c;
    c = b;
    b = a;
    a = (first + second) | 0;
  }
  [a, b, c, d, e, f, g, h].forEach((word, place) => {
    state[place] = (state[place] + word) | 0;
  });
}

function turned(word, bits) {
  return (word >>> bits) | (word << (32 - bits));
}
