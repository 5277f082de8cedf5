/** Scenarios of TLS, named as QEMU's own (tests/qtest/migration/tls-tests.c). */
import type { Identity } from '../support/certificates.ts';
import { CLIENT_NAME, HOST, type TlsFolders } from '../support/tls-folders.ts';
import type { Role, Scenario, TlsSetup } from './model.ts';
import { POSTCOPY_SCENARIOS } from './postcopy-scenarios.ts';

const ROLES: readonly Role[] = ['reference', 'migrate', 'destination', 'source'];
/** Without `vmferry migrate`: it drives two QEMUs, whose TLS is their own affair. */
const WITH_VMFERRY_LEG: readonly Role[] = ['reference', 'destination', 'source'];

/** Every test run plays both kinds of credentials in both directions, over one channel and several, and who must not get in. */
const SMOKE: Readonly<Record<string, readonly Role[]>> = {
  'tls/tcp/psk/mismatch': ['source'],
  'tls/tcp/x509/override-host': ['destination'],
  'tls/tcp/x509/hostile-client': ['destination'],
  'tls/tcp/x509/friendly-client': ['source'],
  'tls/multifd/psk/match': ['destination', 'source'],
  'tls/multifd/x509/reject-anon-client': ['source'],
  'tls/postcopy/preempt/recovery': ['source'],
};

const psk: TlsSetup = (folders) => {
  const dir = folders.psk('psk');
  return { source: [pskOf('client', dir)], destination: [pskOf('server', dir)] };
};

const pskMismatch: TlsSetup = (folders) => ({
  source: [pskOf('client', folders.psk('psk'))],
  destination: [pskOf('server', folders.psk('other-psk', true))],
});

function pskOf(endpoint: string, dir: string) {
  return { 'qom-type': 'tls-creds-psk', id: 'tls0', endpoint, dir };
}

interface Certificates {
  /** Of the server. */
  readonly hosts?: readonly string[];
  readonly ips?: readonly string[];
  /** Of the client; undefined: it has none. */
  readonly client?: string;
  readonly verifyClient?: boolean;
  readonly authz?: boolean;
}

function x509({ hosts, ips, client = CLIENT_NAME, verifyClient = true, authz = false }: Certificates): TlsSetup {
  return certificates({ hosts, ips, verifyClient, authz }, (folders) => folders.client({ name: client }));
}

function anonymous(verifyClient: boolean): TlsSetup {
  return certificates({ ips: ['127.0.0.1'], verifyClient, authz: false }, () => undefined);
}

function certificates(
  {
    hosts,
    ips,
    verifyClient,
    authz,
  }: Pick<Required<Certificates>, 'verifyClient' | 'authz'> & {
    readonly hosts?: readonly string[] | undefined;
    readonly ips?: readonly string[] | undefined;
  },
  clientOf: (folders: TlsFolders) => Identity | undefined,
): TlsSetup {
  return (folders) => {
    const server = folders.server({ ...(hosts === undefined ? {} : { hosts }), ...(ips === undefined ? {} : { ips }) });
    const dir = folders.x509('x509', { server, client: clientOf(folders) });
    const common = { 'qom-type': 'tls-creds-x509', id: 'tls0', dir };
    const authorized = { 'qom-type': 'authz-simple', id: 'authz0', identity: `CN=${CLIENT_NAME}` };
    return {
      source: [{ ...common, endpoint: 'client', 'verify-peer': true }],
      destination: [{ ...common, endpoint: 'server', 'verify-peer': verifyClient }, ...(authz ? [authorized] : [])],
    };
  };
}

const DEFAULT_HOST = x509({ ips: ['127.0.0.1'] });
const OVERRIDE_HOST = x509({ hosts: [HOST] });
const MISMATCH_HOST = x509({ ips: ['10.0.0.1'] });
const NO_HOST = x509({ authz: true });
const FRIENDLY = x509({ ips: ['127.0.0.1'], authz: true });
const HOSTILE = x509({ ips: ['127.0.0.1'], authz: true, client: 'hostile client' });

type Short = Pick<Scenario, 'id' | 'title' | 'ends'> & Partial<Scenario> & { readonly qemu: string };

const OVERRIDE = { parameters: { 'tls-hostname': HOST } };
const AUTHZ = { destinationParameters: { 'tls-authz': 'authz0' } };

const PRECOPY: readonly Short[] = [
  {
    id: 'tls/tcp/psk/match',
    qemu: 'precopy/tcp/tls/psk/match',
    title: 'a key that both know',
    tls: psk,
    ends: 'completed',
  },
  {
    id: 'tls/tcp/psk/mismatch',
    qemu: 'precopy/tcp/tls/psk/mismatch',
    title: 'another key',
    tls: pskMismatch,
    ends: 'failed',
  },
  {
    id: 'tls/unix/psk',
    qemu: 'precopy/unix/tls/psk',
    title: 'a key that both know',
    transport: 'unix',
    tls: psk,
    ends: 'completed',
  },
  {
    id: 'tls/unix/x509/default-host',
    qemu: 'precopy/unix/tls/x509/default-host',
    title: 'a unix socket has no name that a certificate could carry',
    transport: 'unix',
    tls: DEFAULT_HOST,
    ends: 'failed',
  },
  {
    id: 'tls/unix/x509/override-host',
    qemu: 'precopy/unix/tls/x509/override-host',
    title: 'a name that is given',
    transport: 'unix',
    tls: OVERRIDE_HOST,
    ...OVERRIDE,
    ends: 'completed',
  },
  {
    id: 'tls/tcp/no-hostname',
    qemu: 'precopy/tcp/tls/no-hostname',
    title: 'a certificate without a name',
    tls: NO_HOST,
    ...AUTHZ,
    ends: 'failed',
  },
  {
    id: 'tls/tcp/x509/default-host',
    qemu: 'precopy/tcp/tls/x509/default-host',
    title: 'the host of the address',
    tls: DEFAULT_HOST,
    ends: 'completed',
  },
  {
    id: 'tls/tcp/x509/override-host',
    qemu: 'precopy/tcp/tls/x509/override-host',
    title: 'a name that is given',
    tls: OVERRIDE_HOST,
    ...OVERRIDE,
    ends: 'completed',
  },
  {
    id: 'tls/tcp/x509/mismatch-host',
    qemu: 'precopy/tcp/tls/x509/mismatch-host',
    title: 'another address in the certificate',
    tls: MISMATCH_HOST,
    ends: 'failed',
  },
  {
    id: 'tls/tcp/x509/friendly-client',
    qemu: 'precopy/tcp/tls/x509/friendly-client',
    title: 'the client that may come',
    tls: FRIENDLY,
    ...AUTHZ,
    ends: 'completed',
  },
  {
    id: 'tls/tcp/x509/hostile-client',
    qemu: 'precopy/tcp/tls/x509/hostile-client',
    title: 'a client that may not',
    tls: HOSTILE,
    ...AUTHZ,
    ends: 'failed',
  },
  {
    id: 'tls/tcp/x509/allow-anon-client',
    qemu: 'precopy/tcp/tls/x509/allow-anon-client',
    title: 'a client without a certificate where none is asked',
    tls: anonymous(false),
    ends: 'completed',
  },
  {
    id: 'tls/tcp/x509/reject-anon-client',
    qemu: 'precopy/tcp/tls/x509/reject-anon-client',
    title: 'a client without a certificate where one is asked',
    tls: anonymous(true),
    ends: 'failed',
  },
];

const MULTIFD: readonly Short[] = [
  {
    id: 'tls/multifd/psk/match',
    qemu: 'multifd/tcp/tls/psk/match',
    title: 'a key that both know',
    tls: psk,
    ends: 'completed',
  },
  {
    id: 'tls/multifd/psk/mismatch',
    qemu: 'multifd/tcp/tls/psk/mismatch',
    title: 'another key',
    tls: pskMismatch,
    ends: 'failed',
  },
  {
    id: 'tls/multifd/x509/default-host',
    qemu: 'multifd/tcp/tls/x509/default-host',
    title: 'the host of the address',
    tls: DEFAULT_HOST,
    ends: 'completed',
  },
  {
    id: 'tls/multifd/x509/override-host',
    qemu: 'multifd/tcp/tls/x509/override-host',
    title: 'a name that is given',
    tls: OVERRIDE_HOST,
    ...OVERRIDE,
    ends: 'completed',
  },
  {
    id: 'tls/multifd/x509/mismatch-host',
    qemu: 'multifd/tcp/tls/x509/mismatch-host',
    title: 'another address in the certificate',
    tls: MISMATCH_HOST,
    ends: 'failed',
  },
  {
    id: 'tls/multifd/x509/allow-anon-client',
    qemu: 'multifd/tcp/tls/x509/allow-anon-client',
    title: 'a client without a certificate where none is asked',
    tls: anonymous(false),
    ends: 'completed',
  },
  {
    id: 'tls/multifd/x509/reject-anon-client',
    qemu: 'multifd/tcp/tls/x509/reject-anon-client',
    title: 'a client without a certificate where one is asked',
    tls: anonymous(true),
    ends: 'failed',
  },
];

/** QEMU has these with keys only: what postcopy does is the same whatever the credentials. */
const POSTCOPY: readonly Short[] = [
  { ...postcopyOf('postcopy'), qemu: 'postcopy/tls/psk' },
  { ...postcopyOf('postcopy/recovery'), qemu: 'postcopy/recovery/tls/psk' },
  { ...postcopyOf('postcopy/preempt'), qemu: 'postcopy/preempt/tls/psk' },
  { ...postcopyOf('postcopy/preempt/recovery'), qemu: 'postcopy/preempt/recovery/tls/psk' },
  { ...postcopyOf('postcopy/recovery', ['multifd']), qemu: 'multifd+postcopy/recovery/tls/psk' },
  { ...postcopyOf('postcopy/preempt/recovery', ['multifd']), qemu: 'multifd+postcopy/preempt/recovery/tls/psk' },
];

function postcopyOf(id: string, more: readonly string[] = []) {
  const scenario = POSTCOPY_SCENARIOS.find((one) => one.id === id);
  if (scenario === undefined) throw new RangeError(`no scenario ${id}`);
  const { capabilities = [] } = scenario;
  const prefix = more.map((name) => `${name}+`).join('');
  // 10.1 is the first to do both.
  const since = more.length === 0 ? {} : { since: '10.1' };
  return { ...scenario, id: `tls/${prefix}${id}`, capabilities: [...capabilities, ...more], tls: psk, ...since };
}

export const TLS_SCENARIOS: readonly Scenario[] = [
  {
    id: 'tls/none',
    title: 'credentials that are named and then dropped: clear text',
    qemu: '/migration/precopy/tcp/no-tls',
    roles: WITH_VMFERRY_LEG,
    transport: 'tcp' as const,
    bothParameters: { 'tls-creds': '' },
    ends: 'completed' as const,
  },
  ...PRECOPY.map((one) => ({ roles: ROLES, transport: 'tcp' as const, ...secured(one) })),
  ...MULTIFD.map((one) => ({
    roles: ROLES,
    transport: 'tcp' as const,
    capabilities: ['multifd'],
    ...secured(one, { 'multifd-channels': 4 }),
  })),
  {
    roles: ROLES,
    transport: 'tcp' as const,
    capabilities: ['multifd', 'postcopy-ram'],
    since: '10.1',
    ...secured(
      {
        id: 'tls/multifd+postcopy/psk/match',
        qemu: 'multifd+postcopy/tcp/tls/psk/match',
        title: 'postcopy possible but not wanted, a key that both know',
        tls: psk,
        ends: 'completed',
      },
      { 'multifd-channels': 4 },
    ),
  },
  ...POSTCOPY.map((one) => ({ roles: ROLES, transport: 'tcp' as const, ...secured(one, { 'multifd-channels': 4 }) })),
].map((scenario) => ({ ...scenario, smoke: SMOKE[scenario.id] ?? [] }));

function secured({ qemu, ...scenario }: Short, more: Scenario['bothParameters'] = {}) {
  return { ...scenario, qemu: `/migration/${qemu}`, bothParameters: { 'tls-creds': 'tls0', ...more } };
}
