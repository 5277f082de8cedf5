/**
 * X.509 certificates for tests, written byte by byte (RFC 5280) and signed by node:crypto: no tool has to be installed, and any date, name or
 * purpose can be had, also wrong ones.
 */
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';

export interface Identity {
  readonly name: string;
  readonly key: KeyObject;
  /** PEM. */
  readonly certificate: string;
}

export interface CertificateOptions {
  /** Common name. */
  readonly name: string;
  /** Default: itself. */
  readonly issuer?: Identity;
  readonly authority?: boolean;
  /** Extended key usage. */
  readonly purposes?: readonly ('server' | 'client')[];
  readonly hosts?: readonly string[];
  readonly ips?: readonly string[];
  /** Days from now. */
  readonly from?: number;
  readonly to?: number;
}

export function identity(options: CertificateOptions): Identity {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const { name, issuer } = options;
  const body = sequence(
    tagged(0xa0, integer(2)),
    serial(),
    ECDSA_SHA256,
    nameOf(issuer?.name ?? name),
    sequence(day(options.from ?? -1), day(options.to ?? 30)),
    nameOf(name),
    publicKey.export({ type: 'spki', format: 'der' }),
    tagged(0xa3, sequence(...extensions(options))),
  );
  return { name, key: privateKey, certificate: signed('CERTIFICATE', body, issuer?.key ?? privateKey) };
}

/** A list of what `issuer` takes back, PEM. */
export function revocations(issuer: Identity, revoked: readonly Identity[]): string {
  const entries = revoked.map(({ certificate }) => sequence(serialOf(certificate), day(-1)));
  const list = entries.length === 0 ? [] : [sequence(...entries)];
  const body = sequence(integer(1), ECDSA_SHA256, nameOf(issuer.name), day(-1), day(30), ...list);
  return signed('X509 CRL', body, issuer.key);
}

export function keyPem(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

function extensions({ authority = false, purposes = [], hosts = [], ips = [] }: CertificateOptions): Buffer[] {
  const names = [
    ...hosts.map((host) => tagged(0x82, Buffer.from(host))),
    ...ips.map((ip) => tagged(0x87, Buffer.from(ip.split('.').map(Number)))),
  ];
  return [
    extension('2.5.29.19', true, authority ? sequence(tagged(0x01, Buffer.of(0xff))) : sequence()),
    // keyCertSign and cRLSign, or digitalSignature and keyEncipherment, which QEMU 10.0 wants.
    extension('2.5.29.15', true, tagged(0x03, authority ? Buffer.of(1, 0x06) : Buffer.of(5, 0xa0))),
    ...(purposes.length === 0 ? [] : [extension('2.5.29.37', false, sequence(...purposes.map((one) => PURPOSE[one])))]),
    ...(names.length === 0 ? [] : [extension('2.5.29.17', false, sequence(...names))]),
  ];
}

function extension(id: string, critical: boolean, value: Buffer): Buffer {
  return sequence(oid(id), ...(critical ? [tagged(0x01, Buffer.of(0xff))] : []), tagged(0x04, value));
}

function signed(what: string, body: Buffer, key: KeyObject): string {
  const signature = sign('sha256', body, key);
  const der = sequence(body, ECDSA_SHA256, tagged(0x03, Buffer.concat([Buffer.of(0), signature])));
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${what}-----\n${lines.join('\n')}\n-----END ${what}-----\n`;
}

function nameOf(text: string): Buffer {
  return sequence(tagged(0x31, sequence(oid('2.5.4.3'), tagged(0x0c, Buffer.from(text)))));
}

function serial(): Buffer {
  const bytes = randomBytes(8);
  bytes[0] = 0x40 | (bytes[0]! & 0x3f);
  return tagged(0x02, bytes);
}

/** The serial number stands behind the version, at a place that is the same in all that are written here. */
function serialOf(pem: string): Buffer {
  const der = Buffer.from(pem.replaceAll(/-----.*-----|\n/g, ''), 'base64');
  const at = der.indexOf(Buffer.concat([tagged(0xa0, integer(2)), Buffer.of(0x02, 8)])) + 5;
  return der.subarray(at, at + 10);
}

function day(fromNow: number): Buffer {
  const text = new Date(Date.now() + fromNow * 86_400_000).toISOString().replaceAll(/[-:T]|\.\d+/g, '');
  return tagged(0x18, Buffer.from(text));
}

function integer(value: number): Buffer {
  return tagged(0x02, Buffer.of(value));
}

function oid(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number);
  const bytes = rest.flatMap((part) => {
    const groups = [part & 0x7f];
    for (let left = part >> 7; left > 0; left >>= 7) groups.unshift((left & 0x7f) | 0x80);
    return groups;
  });
  return tagged(0x06, Buffer.of(first * 40 + second, ...bytes));
}

function sequence(...parts: readonly Buffer[]): Buffer {
  return tagged(0x30, Buffer.concat(parts));
}

function tagged(tag: number, value: Buffer): Buffer {
  const { length } = value;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.of(tag, ...size), value]);
}

const ECDSA_SHA256 = sequence(oid('1.2.840.10045.4.3.2'));
const PURPOSE = { server: oid('1.3.6.1.5.5.7.3.1'), client: oid('1.3.6.1.5.5.7.3.2') } as const;
