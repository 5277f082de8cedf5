/**
 * Migration URIs in QEMU's text form (qapi/migration.json, `migrate`): tcp:HOST:PORT, tcp:[IPV6]:PORT, unix:PATH, fd:N,
 * exec:COMMAND, file:PATH[,offset=SIZE]. Parsing only: nothing is opened or looked up.
 */
import type { Address } from './channel.ts';
import { badAddress } from './errors.ts';

/** sun_path has 108 bytes on Linux, one of them for the NUL. */
const UNIX_PATH_BYTES_MAX = 107;

const NOT_HERE = new Set(['vsock', 'rdma', 'x-rdma']);

/** Throws TRANSPORT_ADDRESS, naming what is wrong with `text`. */
export function parseAddress(text: string): Address {
  const colon = text.indexOf(':');
  const kind = text.slice(0, Math.max(colon, 0));
  const rest = text.slice(colon + 1);
  switch (kind) {
    case 'tcp':
      return parseTcp(text, rest);
    case 'unix':
      return parseUnix(text, rest);
    case 'fd':
      if (!/^\d{1,9}$/.test(rest)) throw badAddress(text, 'fd: wants the number of an open descriptor');
      return { kind, fd: Number(rest) };
    case 'exec':
      if (rest.trim() === '') throw badAddress(text, 'exec: wants a command');
      return { kind, command: ['/bin/sh', '-c', rest] };
    case 'file':
      return parseFile(text, rest);
    default:
      throw badAddress(
        text,
        NOT_HERE.has(kind) ? `${kind}: is not supported` : 'must begin with tcp:, unix:, fd:, exec: or file:',
      );
  }
}

export function formatAddress(address: Address): string {
  switch (address.kind) {
    case 'tcp':
      return `tcp:${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
    case 'unix':
      return `unix:${address.path}`;
    case 'fd':
      return `fd:${address.fd}`;
    case 'exec':
      return `exec:${address.command[0] === '/bin/sh' && address.command[1] === '-c' ? address.command.slice(2).join(' ') : address.command.join(' ')}`;
    case 'file':
      return `file:${address.path}${address.offset === 0 ? '' : `,offset=0x${address.offset.toString(16)}`}`;
  }
}

function parseTcp(text: string, rest: string): Address {
  const match = /^(?:\[([^\]]*)\]|([^:,]*)):([^:,]*)(,.*)?$/.exec(rest);
  if (match === null) throw badAddress(text, 'tcp: wants HOST:PORT, an IPv6 host in square brackets');
  const port = Number(match[3]);
  if (!/^\d+$/.test(match[3] ?? '') || port > 65535)
    throw badAddress(text, 'the port must be a number from 0 to 65535');
  if (match[4] !== undefined) throw badAddress(text, `options after the port ('${match[4]}') are not supported`);
  return { kind: 'tcp', host: match[1] ?? match[2] ?? '', port };
}

function parseUnix(text: string, path: string): Address {
  if (path === '') throw badAddress(text, 'unix: wants a path');
  if (Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX)
    throw badAddress(text, `the path is longer than the ${UNIX_PATH_BYTES_MAX} bytes a socket address holds`);
  return { kind: 'unix', path };
}

const OFFSET_OPTION = ',offset=';

function parseFile(text: string, rest: string): Address {
  const option = rest.indexOf(OFFSET_OPTION);
  const path = option < 0 ? rest : rest.slice(0, option);
  if (path === '') throw badAddress(text, 'file: wants a path');
  const offset = option < 0 ? 0 : parseSize(rest.slice(option + OFFSET_OPTION.length));
  if (offset === undefined) throw badAddress(text, 'the offset must be a size in bytes, e.g. 4096, 0x1000 or 1M');
  return { kind: 'file', path, offset };
}

const SIZE_SUFFIXES = 'BKMGTPE';

/** Bytes, from decimal with an optional suffix B K M G T P E (powers of 1024), or hexadecimal without; undefined if it is none. */
export function parseSize(text: string): number | undefined {
  const hex = /^0x[0-9a-f]+$/i.test(text);
  const match = /^(\d+(?:\.\d+)?)([bkmgtpe]?)$/i.exec(text);
  if (!hex && match === null) return undefined;
  const size = hex
    ? Number(text)
    : Number(match?.[1]) * 1024 ** Math.max(0, SIZE_SUFFIXES.indexOf((match?.[2] || 'B').toUpperCase()));
  return Number.isSafeInteger(size) ? size : undefined;
}
