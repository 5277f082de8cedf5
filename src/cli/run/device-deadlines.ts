import { type SettingsView, WAITS } from '../../settings/index.ts';
import type { DeviceDeadlines } from '../../vfio/index.ts';

/** How long devices may take, as the settings have it at any time. */
export function deviceDeadlines(settings: SettingsView): DeviceDeadlines {
  return {
    get transitionMs() {
      return settings.parameter(WAITS['device state'].deadline);
    },
    get dataMs() {
      return settings.parameter(WAITS['device data'].deadline);
    },
    get answerMs() {
      return settings.parameter(WAITS['device answer'].deadline);
    },
  };
}
