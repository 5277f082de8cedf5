/** A folder as QEMU's `tls-creds-psk` has it: keys.psk, of lines `user:key in hexadecimal`. */
import { badCredentials } from './errors.ts';
import { read } from './x509-files.ts';

const FILE = 'keys.psk';
/** What OpenSSL takes, bytes. */
const KEY_BYTES_MAX = 256;
const USER_BYTES_MAX = 128;

/** By user. Throws TRANSPORT_TLS_CREDENTIALS. */
export function pskKeys(dir: string): ReadonlyMap<string, Buffer> {
  const keys = new Map<string, Buffer>();
  for (const [index, line] of read(dir, FILE, true)!.split('\n').entries()) {
    if (line.trim() === '') continue;
    const wrong = (why: string) => badCredentials(dir, FILE, `line ${index + 1}: ${why}`);
    const match = /^([^:]+):((?:[0-9a-f]{2})+)\r?$/i.exec(line);
    if (match === null) throw wrong('user:key is wanted, the key in hexadecimal');
    const user = Buffer.from(match[1]!, 'latin1').toString();
    const key = Buffer.from(match[2]!, 'hex');
    if (Buffer.byteLength(user) > USER_BYTES_MAX) throw wrong(`a user has at most ${USER_BYTES_MAX} bytes`);
    if (key.length > KEY_BYTES_MAX) throw wrong(`a key has at most ${KEY_BYTES_MAX} bytes`);
    if (keys.has(user)) throw wrong(`user '${user}' has a key already`);
    keys.set(user, key);
  }
  if (keys.size === 0) throw badCredentials(dir, FILE, 'holds no key');
  return keys;
}

export function pskOf(dir: string, keys: ReadonlyMap<string, Buffer>, user: string): Buffer {
  const key = keys.get(user);
  if (key === undefined) throw badCredentials(dir, FILE, `holds no key of user '${user}'`);
  return key;
}
