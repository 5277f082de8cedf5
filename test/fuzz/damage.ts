/** What fuzz targets share: numbers from a seed, and bytes damaged by them. */
/** Bytes that decoders look at: flags, lengths, types, the ends of integers. */
const SPICE = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x10, 0x20, 0x40, 0x7e, 0x7f, 0x80, 0xef, 0xff];

/** xorshift32: small, and the same everywhere. */
export function generator(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

export function damage(bytes: Buffer, random: (below: number) => number): Buffer {
  let out = Buffer.from(bytes);
  const length = () => out.length;
  const place = () => (length() === 0 ? 0 : random(3) === 0 ? random(Math.min(length(), 400)) : random(length()));
  for (let changes = 1 + random(4); changes > 0; changes--) {
    const at = place();
    switch (random(7)) {
      case 0:
        if (length() > 0) out[at]! ^= 1 << random(8);
        break;
      case 1:
        if (length() > 0) out[at] = SPICE[random(SPICE.length)]!;
        break;
      case 2:
        for (let i = at; i < Math.min(at + 8, length()); i++) out[i] = SPICE[random(SPICE.length)]!;
        break;
      case 3:
        out = Buffer.from(out.subarray(0, at));
        break;
      case 4:
        out = Buffer.concat([out.subarray(0, at), out.subarray(at + 1 + random(40))]);
        break;
      case 5: {
        const from = place();
        out = Buffer.concat([out.subarray(0, at), out.subarray(from, from + random(200)), out.subarray(at)]);
        break;
      }
      default:
        if (at + 4 <= length()) out.writeUInt32BE(random(2) === 0 ? 0xffffffff : random(0x7fffffff), at);
    }
  }
  return out;
}
