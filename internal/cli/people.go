package cli

import "github.com/spf13/cobra"

// peopleCommands are what people call.
func peopleCommands(s *streams) []*cobra.Command {
	return []*cobra.Command{
		demoCommand(s),
		applyCommand(s), diffCommand(s), lintCommand(s), getCommand(s), describeCommand(s), deleteCommand(s), explainCommand(s),
		statusCommand(s), checkCommand(s),
		moveCommand(s, "failover"), moveCommand(s, "failback"), leverCommand(s),
		drillCommand(s), findingCommand(s), evidenceCommand(s),
		tokenCommand(s), userCommand(s), loginCommand(s), logoutCommand(s), whoamiCommand(s),
		versionCommand(s), exitCodesTopic(),
	}
}
