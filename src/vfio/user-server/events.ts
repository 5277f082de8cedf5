import type { vfioUser } from '../../wire/index.ts';
import type { DeviceState } from '../states.ts';

/** What happens at a server, for who watches it. */
export type ServerEvent =
  | { readonly kind: 'client'; readonly version: string; readonly capabilities: vfioUser.Capabilities }
  | { readonly kind: 'state'; readonly from: DeviceState; readonly to: DeviceState }
  | { readonly kind: 'reset' }
  /** The connection is over; `reason`: why, one line for each cause. The device stays as it is. */
  | { readonly kind: 'gone'; readonly reason: Error };
